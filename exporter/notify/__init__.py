"""Messages to people: what to tell, in which words, and sending it once."""
