"""The page: a small server on this machine (`server`), what it keeps for a visitor (`desk`), each scene (`task`).

May import pictures, stack and fusing. `page.html`, `page.css` and `page.js` are what the browser shows.
"""
