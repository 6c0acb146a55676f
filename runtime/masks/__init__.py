"""`epc mask`: the first rows of a training data set, token by token, with what is trained of them.

Nothing here decides what is trained: rows are built by the emitted data scripts, tokenized, masked and verified by
`epc.runtime.mask`, and only shown here.
"""
