"""`python -m ssl_lightning`, the same as `ssl-lightning`."""

from ssl_lightning.entry import main

if __name__ == "__main__":
    main()
