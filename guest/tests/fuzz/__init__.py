"""Coverage-guided fuzzing of everything that reads octets of somebody else: frames, packets, files, a guest's lines.

    python -m guest.tests.fuzz TARGET [SECONDS]     one target, or `all`, one after the other
    tox -e fuzz -- TARGET [SECONDS]                 the same, with what it needs installed

In: octets. Out: nothing, or the octets for which a target's property does not hold, as a file and in words. The one
rule: a target is a plain function of octets that raises when something is wrong, so that an input which was found
once is replayed for ever by pytest (test_fuzz.py), with no fuzzer at hand.

`targets/` has one module each; `table` says what there is; seeds are made by the stack's own encoders, and those that
fuzzing found are kept in `seeds/TARGET/`: by a telling name what once failed, by its SHA-1 what reaches code that
nothing else reaches. `campaign` runs a target under atheris (LLVM's libFuzzer for Python) in a `child` process;
`distil` chooses what is worth keeping.
"""
