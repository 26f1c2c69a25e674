"""Bytes of images in folders, tar files, tables, arrays and stores: listed as a `ByteTable`, read by row."""
