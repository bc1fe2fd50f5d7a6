package gpu

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
)

// envAdvice: these variables choose among GPUs that are open anyway.
func envAdvice(w *world) []found {
	var names []string
	for name, value := range w.Env {
		switch name {
		case "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "LD_PRELOAD":
		case "NVIDIA_VISIBLE_DEVICES":
			if value != "all" {
				continue
			}
		default:
			continue
		}
		if value != "" {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return []found{{what: "set in the job's environment: " + strings.Join(names, ", "), fix: []string{"nothing: a job can change them, so they never isolate"}}}
}

// A fix is where a hole was closed: the first versions without it, one for each
// branch that is maintained.
type fixedIn struct {
	what     string
	versions []string
	hole     string
}

// Of the host's side, from the bulletins that name the versions: NVIDIA's for the
// container toolkit, runc's security advisories.
var fixes = []fixedIn{
	{"toolkit", []string{"1.16.2"}, "CVE-2024-0132"},
	{"toolkit", []string{"1.17.4"}, "CVE-2025-23359"},
	{"toolkit", []string{"1.17.8"}, "CVE-2025-23266"},
	{"runc", []string{"1.1.12"}, "CVE-2024-21626"},
	{"runc", []string{"1.2.8", "1.3.3", "1.4.0-rc.3"}, "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881"},
	{"runc", []string{"1.3.6", "1.4.3", "1.5.0-rc.3"}, "CVE-2026-41579"},
}

// staleVersions holds what the resolver found on the host against known holes.
func staleVersions(w *world) []found {
	if w.Policy == nil {
		return nil
	}
	var all []found
	for _, what := range []string{"toolkit", "runc"} {
		holes := Holes(what, w.Policy.Host[what])
		if len(holes) == 0 {
			continue
		}
		name := what
		if what == "toolkit" {
			name = "nvidia-container-toolkit"
		}
		all = append(all, found{what: name + " " + escape.Text(w.Policy.Host[what]) + " of the host has " + strings.Join(holes, ", "), match: what,
			fix: []string{"on the host: upgrade " + name + "; where the distribution has mended it without a new version: a waiver that says so"}})
	}
	if min, has := w.Policy.MinDriver, w.NVIDIA.Driver; min != "" && has != "" && CompareVersions(has, min) < 0 {
		all = append(all, found{what: "the NVIDIA driver is " + escape.Text(has) + ", and the policy's min_driver is " + escape.Text(min), match: "driver",
			fix: []string{"on the host: upgrade the driver, and reboot"}})
	}
	return all
}

// Holes are those of a version of the toolkit or of runc that are known, with the
// versions that mended them.
func Holes(what, version string) (holes []string) {
	for _, f := range fixes {
		if f.what == what && version != "" && f.open(version) {
			holes = append(holes, f.hole+" (fixed in "+strings.Join(f.versions, ", ")+")")
		}
	}
	return holes
}

// open tells whether a version still has the hole: it is below the fix of its own
// branch, or below all fixes where its branch has none.
func (f fixedIn) open(version string) bool {
	for _, fixed := range f.versions {
		if branch(fixed) == branch(version) {
			return CompareVersions(version, fixed) < 0
		}
	}
	return CompareVersions(version, f.versions[len(f.versions)-1]) < 0
}

// branch is major.minor.
func branch(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(len(parts), 2)], ".")
}

// CompareVersions compares numbers between dots; a release is above its
// candidates, 1.4.0 > 1.4.0-rc.3.
func CompareVersions(a, b string) int {
	aRelease, aPre, aIsPre := strings.Cut(a, "-")
	bRelease, bPre, bIsPre := strings.Cut(b, "-")
	if c := compareDotted(aRelease, bRelease); c != 0 {
		return c
	}
	if aIsPre != bIsPre {
		if aIsPre {
			return -1
		}
		return 1
	}
	return compareDotted(aPre, bPre)
}

func compareDotted(a, b string) int {
	for a != "" || b != "" {
		var x, y string
		x, a, _ = strings.Cut(a, ".")
		y, b, _ = strings.Cut(b, ".")
		xn, xErr := strconv.Atoi(cmp.Or(x, "0"))
		yn, yErr := strconv.Atoi(cmp.Or(y, "0"))
		c := cmp.Compare(xn, yn)
		if xErr != nil || yErr != nil {
			c = cmp.Compare(x, y)
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

// hostParams: the driver lets programs make device nodes.
func hostParams(w *world) []found {
	if w.NVIDIA.Params["ModifyDeviceFiles"] != "1" {
		return nil
	}
	return []found{{what: "ModifyDeviceFiles: 1 in /proc/driver/nvidia/params: NVIDIA's programs may make device nodes and change their modes",
		fix: []string{"in compose.yml: runtime: nvidia or CDI devices, which set it to 0 in the container"}}}
}

// hostProfiling: a side channel between jobs that share a GPU in time.
func hostProfiling(w *world) []found {
	if w.NVIDIA.Params["RmProfilingAdminOnly"] != "0" {
		return nil
	}
	return []found{{what: "RmProfilingAdminOnly: 0 in /proc/driver/nvidia/params: every user reads the GPU's performance counters",
		fix: []string{"on the host, in /etc/modprobe.d: options nvidia NVreg_RestrictProfilingToAdminUsers=1"}}}
}

// limits: what one job can take from all others.
func limits(w *world) []found {
	var none []string
	for _, l := range [][2]string{{"memory", w.Limits.Memory}, {"pids", w.Limits.PIDs}, {"cpu", w.Limits.CPU}} {
		if l[1] == "" {
			none = append(none, l[0])
		}
	}
	var all []found
	if len(none) > 0 {
		all = append(all, found{what: fmt.Sprintf("no limit on %s", strings.Join(none, ", ")), fix: []string{"in compose.yml: mem_limit:, pids_limit: 8192, cpus:"}})
	}
	for _, m := range w.Mounts {
		if m.Point == "/dev/shm" && slices.Contains(m.Super, "size=65536k") {
			all = append(all, found{what: "/dev/shm has 64 MiB, which is too little for most GPU programs", fix: []string{"in compose.yml: shm_size: 2gb"}})
		}
	}
	return all
}
