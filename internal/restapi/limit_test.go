package restapi

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/restserver"
)

// TestNext: never more than so many in any one minute, and never less for long.
func TestNext(t *testing.T) {
	for _, perMinute := range []int{1, 2, 3, 5, 7, 50, 200, 999} {
		l := Limit{PerMinute: perMinute}
		now := time.Unix(1e9, 0)
		free := now
		var taken []time.Time
		for now.Before(time.Unix(1e9+300, 0)) { // somebody who asks as soon as they may
			after, wait := l.next(free, now)
			free = after
			if wait == 0 {
				taken = append(taken, now)
			}
			now = now.Add(wait)
		}
		for i := range taken {
			in := 0
			for _, other := range taken[i:] {
				if other.Sub(taken[i]) >= time.Minute {
					break
				}
				in++
			}
			if in > perMinute {
				t.Fatalf("%d of %d", in, perMinute)
			}
			if i == 0 {
				require.Equal(t, perMinute, in, "the first minute grants them all")
			}
		}
	}
}

// TestClock: a step of the clock neither grants more than at the beginning nor locks
// anybody out.
func TestClock(t *testing.T) {
	l := Limit{PerMinute: 50}
	burst, interval := l.pace()
	now := time.Unix(1e9, 0)
	for name, free := range map[string]time.Time{
		"backwards, by years": now.AddDate(30, 0, 0),
		"backwards":           now.Add(time.Hour),
		"no year at all":      time.Unix(0, 1<<63-1),
	} {
		after, wait := l.next(free, now)
		require.Equal(t, interval, wait, name)
		_, wait = l.next(after, now.Add(wait))
		require.Zero(t, wait, name)
	}
	for name, free := range map[string]time.Time{"forwards": now.Add(-time.Hour), "by decades": {}, "at first": now} {
		for range burst {
			var wait time.Duration
			free, wait = l.next(free, now)
			require.Zero(t, wait, name)
		}
		_, wait := l.next(free, now)
		require.Equal(t, interval, wait, name)
	}
}

func TestParseFree(t *testing.T) {
	l := Limit{PerMinute: 50}
	now := time.Unix(1e9, 0)
	burst, interval := l.pace()
	for text, want := range map[string]time.Time{
		"":                        now,
		"00000000000000000012\n":  time.Unix(0, 12),
		"00000000000000000012":    now.Add(time.Duration(burst) * interval),
		"00000000000000000012\nx": now.Add(time.Duration(burst) * interval),
		"-0000000000000000012\n":  now.Add(time.Duration(burst) * interval),
		"99999999999999999999\n":  now.Add(time.Duration(burst) * interval),
		"garbage":                 now.Add(time.Duration(burst) * interval),
	} {
		require.True(t, want.Equal(l.parseFree([]byte(text), now)), "%q", text)
	}
}

// TestTake has several at once take from a file that was garbage.
func TestTake(t *testing.T) {
	l := Limit{PerMinute: 6000, File: filepath.Join(t.TempDir(), "limit")} // 1,200 at once, one each 12.5 ms
	require.NoError(t, os.WriteFile(l.File, []byte(strings.Repeat("garbage", 100)), 0o600))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				if err := l.take(t.Context(), "host"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	began := time.Now()
	wg.Wait()
	require.GreaterOrEqual(t, time.Since(began), 20*time.Minute/4801-time.Millisecond)
	text, err := os.ReadFile(l.File)
	require.NoError(t, err)
	require.Len(t, text, limitBytes)
}

// TestTakeAll: what is used up is an outage, at once where the deadline is too near.
func TestTakeAll(t *testing.T) {
	s := start(t, restserver.Good)
	s.AddBuild(restserver.Build{})
	s.Fail("", -1, restserver.Status(502)) // retries count, too
	c := client(t, s, Limit{PerMinute: 2, File: filepath.Join(t.TempDir(), "limit")})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := c.Get(ctx, path, nil, new(build))
	require.EqualError(t, err, c.host+": the 2 requests a minute that the configuration grants are used up")
	require.True(t, err.(*Error).Outage)
	require.Len(t, s.Requests(), 1)
	require.NoError(t, ctx.Err())

	s = start(t, restserver.Good)
	s.Fail("", -1, restserver.Redirect(302, "%s"))
	c = client(t, s, Limit{PerMinute: 7, File: filepath.Join(t.TempDir(), "limit")})
	c.patience = time.Second
	_, err = c.Get(t.Context(), path, nil, new(build))
	require.EqualError(t, err, c.host+": the 7 requests a minute that the configuration grants are used up", "redirects count, too")
	require.Len(t, s.Requests(), 2)
}

// TestLimitFile: nobody else has a say in it.
func TestLimitFile(t *testing.T) {
	dir := t.TempDir()
	take := func(file string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		return Limit{PerMinute: 50, File: file}.take(ctx, "host")
	}
	good := filepath.Join(dir, "limit")
	require.NoError(t, take(good))
	require.NoError(t, take(good))

	readable := filepath.Join(dir, "readable")
	require.NoError(t, os.WriteFile(readable, nil, 0o644))
	require.ErrorContains(t, take(readable), "mode 0644, readable by others")

	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(good, link))
	require.Error(t, take(link))

	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	require.ErrorContains(t, take(fifo), "not a regular file")

	require.Error(t, take(dir))
	require.Error(t, take(filepath.Join(dir, "nowhere", "limit")))

	open := filepath.Join(dir, "open")
	require.NoError(t, os.Mkdir(open, 0o700))
	require.NoError(t, os.Chmod(open, 0o777))
	require.ErrorContains(t, take(filepath.Join(open, "limit")), "mode 0777, writable by others")

	held, err := os.Open(good)
	require.NoError(t, err)
	defer held.Close()
	require.NoError(t, unix.Flock(int(held.Fd()), unix.LOCK_EX))
	require.ErrorContains(t, take(good), "another process holds it")
}

func TestLimitFileOfAnother(t *testing.T) {
	need.Root(t, "to give a file to another user")
	file := filepath.Join(t.TempDir(), "limit")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Chown(file, 4712, -1))
	err := Limit{PerMinute: 50, File: file}.take(t.Context(), "host")
	require.ErrorContains(t, err, "owned by uid 4712")
	require.True(t, err.(*Error).Outage)
}
