"""What the debugger shows, from plain data to a screen, a page or a file.

Read document.py first: headings, text, tables and pictures as data. panels/ makes documents of plain data; context.py,
value_view.py and panes.py put a session's data into panels. layout.py lays a document out for a page (drawing.py draws
its pictures in characters), and terminal.py paints the lines. html.py and svg.py render the same documents.
"""
