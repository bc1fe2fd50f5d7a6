package doctor

import (
	"fmt"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/fleet"
)

func tmpfsRun(f *Facts) []found {
	if f.RunType == "" || f.RunType == "tmpfs" || f.RunType == "ramfs" {
		return nil
	}
	return one("/run is %s", f.RunType)
}

func swapOn(f *Facts) []found {
	if len(f.Swap) == 0 {
		return nil
	}
	return one("swap: %s", names(f.Swap))
}

// diskFull: a gigabyte is little on a disk, and a lot in memory.
func diskFull(f *Facts) (all []found) {
	for _, d := range f.Disks {
		p := Problem{}
		switch {
		case d.Free < min(1<<30, d.Total/10) || d.Free < d.Total/50:
			p.What = fmt.Sprintf("%s: %s of %s are free", d.Path, fleet.Bytes(int64(d.Free)), fleet.Bytes(int64(d.Total)))
		case d.FreeFiles < d.Files/50:
			p.What = fmt.Sprintf("%s: of %d files (inodes) %d are free", d.Path, d.Files, d.FreeFiles)
		default:
			continue
		}
		if d.Path == "/run" {
			p.Fix = "du -xsh /run/* says what fills it, in memory"
		}
		all = append(all, found{Problem: p})
	}
	return all
}

func clockOff(f *Facts) []found {
	if off := f.Clock.Off; f.Clock.Asked && off.Abs() > time.Minute {
		way := "ahead of"
		if off < 0 {
			way = "behind"
		}
		return one("it is %s %s Buildkite's", off.Abs().Round(time.Second), way)
	}
	return nil
}

func clockUnsynced(f *Facts) []found {
	if !f.Clock.Unsynced {
		return nil
	}
	return one("the kernel says that its clock is not synchronized")
}
