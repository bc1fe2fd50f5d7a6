package harden

func dumpable() bool { return false } // macOS does not know the word
