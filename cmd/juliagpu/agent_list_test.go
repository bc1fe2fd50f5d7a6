package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTable(t *testing.T) {
	now := time.Date(2026, 11, 23, 13, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return now.Add(-d) }
	const id = "0193a1b2-0000-4000-8000-000000000001"
	rows := []row{
		{Name: "gpuci.1", Kind: "nvidia", GPUs: []string{"GPU-1b7ad372-8d21-4239-8e32-63449f713690"}, Unit: state{Is: "running", Active: "active"}, Last: &last{ID: id, Began: at(3 * time.Minute)}},
		{Name: "gpuci.2", Kind: "nvidia", GPUs: []string{"GPU-0a1b2c3d-1111-4222-8333-444455556666", "GPU-0a1b2c3d-4444-4222-8333-444455556666"}, Unit: state{Is: "draining", Active: "deactivating"}, Last: &last{ID: id, Began: at(3 * time.Hour)}},
		{Name: "gpuci.3", Kind: "mig", GPUs: []string{"MIG-b62d579f-e90e-5e60-88e2-1b36371298b9"}, Unit: state{Is: "waiting, failures in a row: 3", Active: "activating", Failures: 3}, Last: &last{ID: id, Began: at(80 * time.Hour), Ended: at(73 * time.Hour)}},
		{Name: "gpuci.4", Kind: "nvidia", GPUs: []string{"GPU-0a1b2c3d-2222-4222-8333-444455556666"}, Unit: state{Is: "running", Active: "active", start: "b"}, Last: &last{ID: id, Began: at(time.Hour), start: "a"}},
		{Name: "gpuci.5", Kind: "nvidia", GPUs: []string{"GPU-0a1b2c3d-3333-4222-8333-444455556666"}, Unit: state{Is: "running", Active: "active"}, silent: true},
		{Name: "rocm.1", Kind: "amd", GPUs: []string{"0000:03:00.0"}, Unit: state{Is: "failed", Active: "failed"}, Last: &last{ID: id, Began: at(9 * time.Second)}},
		{Name: "upload.1", Kind: "upload", Unit: state{Is: "stopped, not at boot", Active: "inactive"}},
		{Name: "wrong", Unit: state{Is: "no unit"}, Error: `/etc/juliagpu-secrets/agents/wrong/.env:3: AGENT_KIND: none of upload, cpu, nvidia`},
	}
	golden(t, "agents-200.txt", table(rows, 200, now))
	golden(t, "agents-40.txt", table(rows, 40, now))
	require.Equal(t, table(rows, 200, now), table(rows, 0, now))
}

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{-time.Second: "0 s", 59 * time.Second: "59 s", 119 * time.Minute: "119 min", 47 * time.Hour: "47 h", 49 * time.Hour: "2 days"} {
		require.Equal(t, want, ago(d))
	}
}
