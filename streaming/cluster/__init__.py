"""Sessions on many machines: ``lhm-live serve --cluster``. Nothing here is imported without it.

A gateway is the ordinary server, except that sessions live elsewhere: each in a seat, which is a Ray actor that runs
the ordinary server for that one session. Media flow straight between seat and viewers.

    gateway.py    the routes of a gateway: what concerns a session is passed on to its seat
    keeper.py     which session is where; puts back what was lost, moves what has to move
    seat.py       how a gateway talks to a seat
    placement.py  the only module that calls Ray from outside: nodes, and the seats on them
    worker.py     the actor itself
    records.py    what sessions are, in shared storage, so that they can begin again elsewhere
    mirror.py     avatars in shared storage
    storage.py    that storage, by fsspec
    waiting.py    asking what blocks, without waiting for ever
"""
