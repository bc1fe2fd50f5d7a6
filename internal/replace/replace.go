// Package replace writes files whole or not at all.
package replace

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// File puts text in the place of what is at path, if anything. Whatever stops it,
// the older file is there or the new one, and nothing beside it but, where the
// program is killed, a hidden file of the same name and digits. The new file is
// private (0600); ready, which may be nil, is called before it takes the other's
// place: to make it look otherwise, or to call it off.
func File(path string, text []byte, ready func(*os.File) error) error {
	return beside(path, func(folder *os.Root, name string) error { return In(folder, name, text, ready) })
}

// In is File for a path in a folder: no link leads out of that.
func In(folder *os.Root, path string, text []byte, ready func(*os.File) error) error {
	return put(folder, path, text, ready, folder.Rename)
}

// New is File where nothing is yet, and private. What is there stays, and the error
// wraps fs.ErrExist.
func New(path string, text []byte) error {
	return beside(path, func(folder *os.Root, name string) error {
		err := put(folder, name, text, nil, func(hidden, name string) error {
			if err := folder.Link(hidden, name); err != nil {
				return err
			}
			if err := folder.Remove(hidden); err != nil {
				return errors.Join(err, folder.Remove(name))
			}
			return nil
		})
		if err != nil {
			return err
		}
		// So that it outlasts a power cut; not every file system can say that it does.
		if dir, err := folder.Open("."); err == nil {
			dir.Sync()
			dir.Close()
		}
		return nil
	})
}

// beside opens the folder of a path, so that nobody puts another in its place.
func beside(path string, do func(folder *os.Root, name string) error) error {
	folder, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	return do(folder, filepath.Base(path))
}

func put(folder *os.Root, path string, text []byte, ready func(*os.File) error, into func(hidden, path string) error) (err error) {
	f, hidden, err := temporary(folder, path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			folder.Remove(hidden)
		}
	}()
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if ready != nil {
		if err := ready(f); err != nil {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	return into(hidden, path)
}

// temporary makes a private file with a name that is new, as os.CreateTemp does.
func temporary(folder *os.Root, path string) (f *os.File, hidden string, err error) {
	for range 10000 {
		hidden = filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%d", filepath.Base(path), rand.Uint32()))
		f, err = folder.OpenFile(hidden, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	return f, hidden, err
}
