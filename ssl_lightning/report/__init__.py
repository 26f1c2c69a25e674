"""Tables, figures and HTML pages."""

from ssl_lightning.report.contact_sheet import contact_sheet, representatives, save_png
from ssl_lightning.report.curves import draw_curves
from ssl_lightning.report.page import Figure, Section, write_page
from ssl_lightning.report.table import percent_table, results_table

__all__ = [
    "Figure",
    "Section",
    "contact_sheet",
    "draw_curves",
    "percent_table",
    "representatives",
    "results_table",
    "save_png",
    "write_page",
]
