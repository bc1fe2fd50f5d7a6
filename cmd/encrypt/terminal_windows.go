package main

// The console (learn.microsoft.com/windows/console/console-handles).
const terminalIn, terminalOut = "CONIN$", "CONOUT$"
