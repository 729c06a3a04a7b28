"""The page: a small server on this machine (`server`), what it keeps for a visitor (`desk`), each scene (`task`).

May import pictures, stack and fusing. `page.html`, `page.css` and `page.js` are what the browser shows.

What a visitor asks wrongly is a `UserError`, or `Refused` with its HTTP status; what is gone is a KeyError, what is not
made yet a FileNotFoundError. `Handler.answer` turns all of them into the line that the page shows.
"""
