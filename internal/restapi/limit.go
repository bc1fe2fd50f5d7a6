package restapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
)

// The file of a limit holds the time at which all of it is free again, in
// nanoseconds since 1970, as 20 digits and a line break ("theoretical arrival time"
// of the generic cell rate algorithm). It is private, since whoever can open it can
// lock it, and its owner is root or the program's user.

const limitBytes = 21

// pace is a limit's two numbers: so many requests at once, and one each interval
// afterwards, together never more than PerMinute in any one minute.
func (l Limit) pace() (burst int, interval time.Duration) {
	burst = (l.PerMinute + 4) / 5
	later := time.Duration(l.PerMinute - burst + 1)
	return burst, (time.Minute + later - 1) / later
}

// next says how long a request at now has to wait, or, where it has not to, what
// the file says afterwards. free is what it says before. Whatever that is, the wait
// is no longer than an interval: after a step of the clock backwards free may lie
// anywhere.
func (l Limit) next(free, now time.Time) (after time.Time, wait time.Duration) {
	burst, interval := l.pace()
	full := time.Duration(burst) * interval
	if free.Sub(now) > full {
		free = now.Add(full)
	}
	if free.Before(now) {
		free = now
	}
	if wait := free.Add(interval).Sub(now) - full; wait > 0 {
		return free, wait
	}
	return free.Add(interval), 0
}

// parseFree reads a file. What no process of ours writes counts as used up.
func (l Limit) parseFree(text []byte, now time.Time) time.Time {
	if len(text) == 0 {
		return now // just made
	}
	if len(text) == limitBytes && text[limitBytes-1] == '\n' {
		if nanos, err := strconv.ParseUint(string(text[:limitBytes-1]), 10, 63); err == nil {
			return time.Unix(0, int64(nanos))
		}
	}
	burst, interval := l.pace()
	return now.Add(time.Duration(burst) * interval)
}

// take takes one request, and waits for it within ctx.
func (l Limit) take(ctx context.Context, host string) error {
	if l == (Limit{}) {
		return nil
	}
	for {
		wait, err := l.tryTake(ctx)
		if err != nil {
			return &Error{Host: host, Cause: "the limit of requests: " + escape.Text(err.Error()), Hint: "see the configuration and that file; it may be removed at any time", Outage: true}
		}
		if wait == 0 {
			return nil
		}
		if err := sleep(ctx, wait); err != nil {
			return &Error{
				Host: host, Outage: true,
				Cause: fmt.Sprintf("the %d requests a minute that the configuration grants are used up", l.PerMinute),
				Hint:  "try again later, or raise the limit in the configuration",
			}
		}
	}
}

// tryTake takes one now, or says how long to wait.
func (l Limit) tryTake(ctx context.Context) (time.Duration, error) {
	file, err := l.open()
	if err != nil {
		return 0, err
	}
	defer file.Close() // which unlocks it
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return 0, fmt.Errorf("lock %s: %w", l.File, err)
		}
		if sleep(ctx, 5*time.Millisecond) != nil { // it is held for microseconds
			return 0, fmt.Errorf("%s: another process holds it", l.File)
		}
	}
	text := make([]byte, limitBytes+1)
	n, _ := file.ReadAt(text, 0)
	now := time.Now()
	after, wait := l.next(l.parseFree(text[:n], now), now)
	line := fmt.Appendf(nil, "%020d\n", after.UnixNano())
	if bytes.Equal(line, text[:n]) {
		return wait, nil
	}
	if _, err := file.WriteAt(line, 0); err != nil {
		return 0, err
	}
	return wait, file.Truncate(limitBytes)
}

// open opens the file, made where it is not there, that nobody else can open.
func (l Limit) open() (*os.File, error) {
	path := filepath.Clean(l.File)
	// O_NONBLOCK: opening anything but a file must not wait.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	file := os.NewFile(uintptr(fd), path)
	if _, err := rootfile.Check(path, rootfile.Rule{User: os.Getuid(), Private: true}); err != nil {
		file.Close()
		return nil, err
	}
	// Nobody else could have changed what is there now: is it what was opened?
	opened, err := file.Stat()
	if err == nil {
		var there os.FileInfo
		if there, err = os.Lstat(path); err == nil && !os.SameFile(opened, there) {
			err = fmt.Errorf("%s: replaced while it was opened", path)
		}
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}
