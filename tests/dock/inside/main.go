//go:build linux

// Inside is what tests run in a container that has no other program.
//
//	inside wait PROGRAM [ARGUMENT…]    says that it is there, waits for the end of its
//	                                   input, and becomes the program
//	inside time ROUNDS A B             runs two programs in turn, and prints how many
//	                                   nanoseconds each took, a round a line
package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"time"
)

func main() {
	var err error
	switch os.Args[1] {
	case "wait":
		fmt.Println("here")
		io.Copy(io.Discard, os.Stdin)
		err = syscall.Exec(os.Args[2], os.Args[2:], os.Environ())
	case "time":
		var rounds int
		if rounds, err = strconv.Atoi(os.Args[2]); err == nil {
			err = measure(rounds, os.Args[3], os.Args[4])
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "inside: error:", err)
		os.Exit(2)
	}
}

// measure runs each program once for the caches, and then rounds of both, in one
// order or the other.
func measure(rounds int, a, b string) error {
	for round := range rounds + 1 {
		var took [2]time.Duration
		first := rand.IntN(2)
		for _, i := range []int{first, 1 - first} {
			var err error
			if took[i], err = run([]string{a, b}[i]); err != nil {
				return err
			}
		}
		if round > 0 {
			fmt.Println(took[0].Nanoseconds(), took[1].Nanoseconds())
		}
	}
	return nil
}

// run is a program from fork to exit, as an agent waits for it.
func run(program string) (time.Duration, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	started := time.Now()
	process, err := os.StartProcess(program, []string{program}, &os.ProcAttr{Env: []string{}, Files: []*os.File{null, null, null}})
	if err != nil {
		return 0, err
	}
	state, err := process.Wait()
	took := time.Since(started)
	if err == nil && !state.Success() {
		err = fmt.Errorf("%s: %s", program, state)
	}
	return took, err
}
