"""The proof: hurt the suite on the very disk that holds the data, and check what is left each time.

`runner` plans trials and counts them; a trial is one fault at one place, followed by the checks of `invariants`.  The
kinds: `kills`, `errors`, `powercut` (states computed from recorded calls), `writers`, `holders` (locks).  Everything
happens in a scratch workspace (`scratch`) on the same file system; what was tried ends up in the certificate
(`recovery.certificate`).  For Python 3.11, standard library only.
"""
