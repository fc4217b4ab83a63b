"""The front door: an ASGI app in front of TorchServe 0.12, which works around its treatment of requests.

- TorchServe drops the query string of ``/predictions`` and ``/explanations``; it is passed in a header that handlers
  read. It parses bodies declared as a form, which is curl's default, and fails on images; they are declared as bytes,
  and multipart forms are refused.
- Its HTTP parser is old and vulnerable to request smuggling. Requests are parsed by h11 and asked anew, each over a
  connection of its own. Predictions, explanations and ``/ping`` are forwarded, and nothing else.
- It answers wrong keys with 400, a dead worker with 507, and a model without workers not at all; the front door checks
  keys before it reads a body, and asks clients to try again with 503 and ``Retry-After``.
- Its workers go on when a client leaves; here they end between two steps.

Bodies are streamed in both directions and are not stored. The front door listens on 127.0.0.1 alone.
"""
