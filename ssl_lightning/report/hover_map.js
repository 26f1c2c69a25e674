// Shows the image of the point under the pointer, its class, and its nearest neighbors in each map of `hover_map`.
// Points are in units of the map, which is SIZE wide. Text comes from file names and is set as text alone.
(() => {
  const SIZE = 1000;
  const REACH = 60; // a point that is farther from the pointer is not meant
  const SHEETS = 24; // files of thumbnails that are kept in memory
  const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  function nearestPoint(points, x, y, reach) {
    let best = -1, least = reach * reach;
    points.forEach(([px, py], index) => {
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance <= least) { best = index; least = distance; }
    });
    return best;
  }

  function nextPoint(points, from, [dx, dy]) {
    let best = from, least = Infinity;
    points.forEach(([x, y], index) => {
      const along = (x - points[from][0]) * dx + (y - points[from][1]) * dy;
      const across = Math.abs((x - points[from][0]) * dy) + Math.abs((y - points[from][1]) * dx);
      if (along > 0 && along >= across && along + 2 * across < least) { best = index; least = along + 2 * across; }
    });
    return best;
  }

  function setUp(root) {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const maps = [...root.querySelectorAll('svg')];
    const panel = root.querySelector('.hover-map-panel');
    const file = root.querySelector('img');
    const nameOf = (index) => data.labels[index] < 0 ? '' : data.names[data.labels[index]] ?? String(data.labels[index]);
    let shown = -1, kept = false;
    const sheets = new Map(); // the files of the last images, the newest last

    function sheet(number) {
      const found = sheets.get(number) ?? new Image();
      if (!found.src) found.src = `${data.thumbnails.prefix}${number}.jpg`;
      sheets.delete(number);
      sheets.set(number, found);
      if (sheets.size > SHEETS) sheets.delete(sheets.keys().next().value);
      return found;
    }

    function image(index, kind, caption) {
      const box = element('div', `hover-map-image ${kind}`);
      const canvas = element('canvas');
      const { side, columns, places, perFile, shapes } = data.thumbnails;
      const place = places ? places[index] : index, within = places ? place % perFile : place;
      const source = places ? sheet(Math.floor(place / perFile)) : file;
      const [height, width] = shapes ? shapes[index] : [side, side];
      const isLarge = kind === 'large';
      [canvas.width, canvas.height] = isLarge ? [width, height] : [side, side];
      const copy = () => canvas.getContext('2d').drawImage(
        source, (within % columns) * side, Math.floor(within / columns) * side, width, height,
        (canvas.width - width) >> 1, (canvas.height - height) >> 1, width, height);
      if (source.complete && source.naturalWidth) copy(); else source.addEventListener('load', copy, { once: true });
      box.append(canvas, element('span', '', caption));
      box.title = data.files[index] ? `${caption} ${data.files[index]}`.trim() : caption;
      if (!isLarge) opens(box, index);
      return box;
    }

    function opens(box, index) {
      box.tabIndex = 0;
      box.setAttribute('role', 'button');
      box.addEventListener('click', () => keep(index));
      box.addEventListener('keydown', (event) => { if (event.key === 'Enter') keep(index); });
    }

    function keep(index) {
      kept = true;
      show(index);
    }

    function mark(svg, points, index, radius) {
      const circle = document.createElementNS('http://www.w3.org/2000/svg', 'circle');
      const attributes = { class: 'mark', cx: points[index][0], cy: points[index][1], r: radius };
      for (const [name, value] of Object.entries(attributes)) circle.setAttribute(name, value);
      svg.append(circle);
    }

    function show(index) {
      if (index < 0 || index === shown) return;
      shown = index;
      panel.replaceChildren(image(index, 'large', nameOf(index)), element('p', '', data.files[index] ?? ''));
      if (data.details) panel.append(element('p', '', data.details[index]));
      maps.forEach((svg, place) => {
        svg.querySelectorAll('.mark').forEach((old) => old.remove());
        mark(svg, data.points[place], index, 22);
        const neighbors = data.neighbors[place]?.[index] ?? [];
        neighbors.forEach((near) => mark(svg, data.points[place], near, 11));
        if (!neighbors.length) return;
        const row = element('div', 'hover-map-images');
        row.append(...neighbors.map((near) =>
          image(near, data.labels[near] === data.labels[index] ? 'near' : 'near other', nameOf(near))));
        panel.append(element('p', '', `nearest, ${data.titles[place]}`), row);
      });
    }

    maps.forEach((svg, place) => {
      const points = data.points[place];
      const under = (event) => {
        const area = svg.getBoundingClientRect(), scale = SIZE / area.width;
        return nearestPoint(points, (event.clientX - area.left) * scale, (event.clientY - area.top) * scale, REACH);
      };
      svg.addEventListener('pointermove', (event) => { if (!kept) show(under(event)); });
      svg.addEventListener('pointerdown', (event) => {
        const index = under(event);
        kept = index >= 0 && event.pointerType === 'mouse' && !(kept && index === shown);
        show(index);
      });
      svg.addEventListener('keydown', (event) => {
        if (!(event.key in DIRECTIONS)) return;
        event.preventDefault();
        show(shown < 0 ? nearestPoint(points, SIZE / 2, SIZE / 2, SIZE) : nextPoint(points, shown, DIRECTIONS[event.key]));
      });
    });
    panel.append(element('p', '', 'Point at an image of the map, tap it, or use the arrow keys.'));
    if (root.querySelector('form')) setUpSearch();
    const open = (event) => { // an image of any section, also of one that follows this script
      const image = event.target.closest('[data-image]');
      if (!image || (event.type === 'keydown' && event.key !== 'Enter')) return;
      keep(Number(image.dataset.image));
      root.scrollIntoView({ behavior: 'smooth' });
    };
    document.addEventListener('click', open);
    document.addEventListener('keydown', open);

    // Finds the images with this text in path or detail, one after the other.
    function setUpSearch() {
      const form = root.querySelector('form');
      show(nearestPoint(data.points[0], SIZE / 2, SIZE / 2, SIZE)); // such a page has no empty panel
      const input = form.querySelector('input'), output = form.querySelector('output');
      let text = '', found = [], turn = 0;
      form.addEventListener('submit', (event) => {
        event.preventDefault();
        const entered = input.value.trim().toLowerCase();
        if (entered !== text) {
          text = entered;
          turn = 0;
          const ids = (data.details ?? []).map((line) => /^id (\d+)/.exec(line)?.[1]);
          const all = data.files.map((name, index) => [name.toLowerCase().includes(text) || ids[index] === text, index]);
          found = text ? all.filter(([matches]) => matches).map(([, index]) => index) : [];
          found.sort((one, other) => (ids[other] === text) - (ids[one] === text) || one - other);
        }
        if (found.length) keep(found[turn % found.length]);
        output.textContent = found.length ? `${turn % found.length + 1} of ${found.length}` : text ? 'none' : '';
        turn += 1;
      });
    }
  }

  for (const root of document.querySelectorAll('.hover-map:not([data-ready])')) {
    root.dataset.ready = '';
    setUp(root);
  }
})();
