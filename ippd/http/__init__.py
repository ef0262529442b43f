"""HTTP as the families see it: routes, requests, answers. Only this package names bottle and multipart."""

from ippd.http.access import account
from ippd.http.answers import Answer, json_answer, json_text, list_answer, page, redirect
from ippd.http.app import Application, make_app
from ippd.http.browsers import check_csrf, cors, csrf_token, from_another_site
from ippd.http.family import Family
from ippd.http.files import file_answer, zip_answer
from ippd.http.pages import pages
from ippd.http.request import Request

__all__ = [
    "Answer",
    "Application",
    "Family",
    "Request",
    "account",
    "check_csrf",
    "cors",
    "csrf_token",
    "file_answer",
    "from_another_site",
    "json_answer",
    "json_text",
    "list_answer",
    "make_app",
    "page",
    "pages",
    "redirect",
    "zip_answer",
]
