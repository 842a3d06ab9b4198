"""Reading an edit instruction in English: its clauses, their phrases, and the lexicon they are made of."""
