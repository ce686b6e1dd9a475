"""`miwake review`: a page on this machine for looking at pictures and deciding, by keyboard.

queues   what is to be looked at, from the tables that the stages wrote
server   the page, pictures and decisions over HTTP, for this machine and one token alone
page.html, review.js, review.css   the page
"""
