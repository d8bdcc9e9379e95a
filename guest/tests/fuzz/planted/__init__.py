"""Faults put there on purpose: a campaign that does not find them is no campaign.

In: octets. Out: what each of the names says, for one input among very many.
"""
