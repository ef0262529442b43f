"""Runs first in the frozen program: loads now what Python would load at some later time, out of files that may be gone by then.

The unpacked files may fall to a cleaner of temporary files, and the program itself may be replaced by its next version, while it runs.
What ippd and its libraries import at their start needs no word here.
"""
# ruff: noqa: F401

import _strptime  # time.strptime()
import bz2  # tarfile and zipfile, when they meet such an archive
import concurrent.futures.thread
import email.generator
import email.mime.text
import encodings.ascii  # str.encode() and bytes.decode(), each when it is asked for
import encodings.cp437  # names in zip files
import encodings.cp1252
import encodings.idna
import encodings.iso8859_15
import encodings.latin_1
import encodings.punycode
import encodings.raw_unicode_escape
import encodings.unicode_escape
import encodings.utf_8_sig
import encodings.utf_16
import getpass
import gzip
import linecache  # tracebacks
import lzma
import sqlite3.dbapi2
import tokenize
import unicodedata
