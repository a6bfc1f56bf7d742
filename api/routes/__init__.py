"""One module a noun of the API: check, store, dispatch, answer."""
