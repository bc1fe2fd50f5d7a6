package doctor

import (
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

func diskFull(f *Facts) (all []found) {
	for _, d := range f.Disks {
		if d.Free < 1<<30 || d.Free < d.Total/50 {
			all = append(all, one("%s: %s of %s are free", d.Path, fleet.Bytes(int64(d.Free)), fleet.Bytes(int64(d.Total)))...)
		}
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
