"""The page to try a model: a form made of its schema, its answer, and the answer's explanation.

``form`` renders the page, ``routes`` serves it with ``try.css`` and ``try.js``: no framework, and
nothing from another server.
"""
