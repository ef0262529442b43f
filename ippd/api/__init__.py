"""The dialects of HTTP that ippd speaks, one module each."""
