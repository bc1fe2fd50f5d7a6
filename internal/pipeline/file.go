package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/replace"
)

// ErrChanged says that a file is not what was edited: somebody else wrote it in
// between.
var ErrChanged = errors.New("changed meanwhile, so it was left alone")

// WriteFile puts edited in the place of a file whose content is original: whole
// or not at all, with the same mode and, where that is permitted, owner. A
// symbolic link stays and the file behind it is replaced; another hard link
// keeps the old content. It refuses what is not a regular file or can't be
// written, and a file that changed, with ErrChanged.
func WriteFile(path string, edited, original []byte) (err error) {
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", path)
	}
	// A rename would replace a file that nobody may write.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	f.Close()

	return replace.File(path, edited, func(f *os.File) error {
		keepOwner(f, info)
		if err := f.Chmod(info.Mode().Perm()); err != nil {
			return err
		}
		// Last, so that little time is left for another change.
		now, err := os.ReadFile(path)
		if err == nil && !bytes.Equal(now, original) {
			err = fmt.Errorf("%s: %w", path, ErrChanged)
		}
		return err
	})
}
