package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseExpires(t *testing.T) {
	now := time.Date(2027, 1, 31, 15, 4, 5, 6, time.FixedZone("", 2*3600)) // 13:04 UTC
	for _, tt := range []struct{ about, s, want string }{
		{"days, up to midnight", "90d", "2027-05-02T00:00:00Z"},
		{"a day", "1d", "2027-02-02T00:00:00Z"},
		{"weeks", "12w", "2027-04-26T00:00:00Z"},
		{"months", "6m", "2027-08-01T00:00:00Z"},
		{"a month that has no 31st", "1m", "2027-03-04T00:00:00Z"},
		{"years", "1y", "2028-02-01T00:00:00Z"},
		{"many years", "100y", "2127-02-01T00:00:00Z"},
		{"a date", "2027-06-30", "2027-06-30T00:00:00Z"},
		{"tomorrow", "2027-02-01", "2027-02-01T00:00:00Z"},
		{"a time", "2027-06-30T12:00:00Z", "2027-06-30T12:00:00Z"},
		{"a time elsewhere", "2027-06-30T12:00:00-05:00", "2027-06-30T17:00:00Z"},
		{"a time with a fraction", "2027-06-30T12:00:00.9Z", "2027-06-30T12:00:00Z"},

		{"today", "2027-01-31", ""},
		{"this moment", "2027-01-31T13:04:05Z", ""},
		{"no days", "0d", ""},
		{"days ago", "-1d", ""},
		{"after the year 9999", "9999y", ""},
		{"hours", "24h", ""},
		{"capitals", "90D", ""},
		{"no unit", "90", ""},
		{"two units", "1y6m", ""},
		{"no such day", "2027-02-30", ""},
		{"nothing but a blank", " ", ""},
	} {
		got, err := parseExpires(tt.s, now)
		if tt.want == "" {
			require.Error(t, err, tt.about)
			continue
		}
		require.NoError(t, err, tt.about)
		assert.Equal(t, tt.want, got.Format(time.RFC3339), "parseExpires(%q): %s", tt.s, tt.about)
	}
}

func TestParseRepo(t *testing.T) {
	const cuda = "github.com/juliagpu/cuda.jl"
	for s, want := range map[string]string{
		cuda:                                     cuda,
		"github.com/JuliaGPU/CUDA.jl":            cuda,
		"GitHub.com/JuliaGPU/CUDA.jl.git":        cuda,
		"https://github.com/JuliaGPU/CUDA.jl":    cuda,
		"git@github.com:JuliaGPU/CUDA.jl.git":    cuda,
		"ssh://git@git.example.org:2222/Team/T":  "git.example.org:2222/Team/T",
		"git.example.org:8443/Team/Tool":         "git.example.org:8443/Team/Tool",
		"git.example.org/group/sub/tool":         "git.example.org/group/sub/tool",
		"":                                       "",
		"JuliaGPU/CUDA.jl":                       "",
		"juliagpu/cuda.jl":                       "",
		"CUDA.jl":                                "",
		"./CUDA.jl":                              "",
		"../juliagpu/cuda.jl":                    "",
		"/srv/git/cuda.jl":                       "",
		"github.com/juliagpu":                    "",
		"https://github.com/juliagpu/cuda.jl?x=": "",
	} {
		got, err := parseRepo(s)
		assert.Equal(t, want, got.String(), "parseRepo(%q)", s)
		assert.Equal(t, want == "", err != nil, "parseRepo(%q)", s)
	}
}

func TestParsePermutes(t *testing.T) {
	for _, args := range [][]string{
		{"NAME", "--raw", "--tag", "a", "--tag=b"},
		{"--tag", "a", "NAME", "--raw", "--tag", "b"},
		{"--raw", "--tag=a", "-tag", "b", "NAME"},
		{"--raw", "--tag=a", "-tag", "b", "--", "NAME"},
		{"--tag=a", "--raw=true", "--tag", "b", "NAME", "--"},
	} {
		o, err := parse(args)
		require.NoError(t, err, args)
		assert.Equal(t, options{name: "NAME", raw: true, tags: list{"a", "b"}}, o, args)
	}
	for _, args := range [][]string{
		{"NAME", "--", "--raw"}, {"--", "NAME", "value"}, {"NAME", "-"}, {"NAME", ""}, {"", "NAME"}, {"--", ""}, {""},
		{"NAME", "-x"}, {"NAME", "---raw"}, {"NAME", "--tag"}, {"NAME", "--raw=maybe"}, {"NAME", "-=x"},
	} {
		_, err := parse(args)
		require.Error(t, err, "%q", args)
	}
	o, err := parse(nil)
	require.NoError(t, err)
	require.Equal(t, options{}, o)
}
