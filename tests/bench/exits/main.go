// Exits does nothing: it stands in for the agent's bootstrap, whose own time is
// not that of what starts it.
package main

func main() {}
