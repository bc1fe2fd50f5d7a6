package repo

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const cuda = "github.com/juliagpu/cuda.jl"

// TestFromURL states for each spelling which repository it is; "" is refused.
func TestFromURL(t *testing.T) {
	for _, tt := range []struct{ name, url, want string }{
		// The same repository.
		{"https", "https://github.com/JuliaGPU/CUDA.jl", cuda},
		{"https with .git", "https://github.com/JuliaGPU/CUDA.jl.git", cuda},
		{"trailing slash", "https://github.com/JuliaGPU/CUDA.jl/", cuda},
		{".git and trailing slash", "https://github.com/JuliaGPU/CUDA.jl.git/", cuda},
		{"http", "http://github.com/juliagpu/cuda.jl", cuda},
		{"git", "git://github.com/JuliaGPU/CUDA.jl.git", cuda},
		{"ssh", "ssh://git@github.com/JuliaGPU/CUDA.jl.git", cuda},
		{"ssh with its port", "ssh://git@github.com:22/JuliaGPU/CUDA.jl.git", cuda},
		{"git+ssh", "git+ssh://git@github.com/JuliaGPU/CUDA.jl", cuda},
		{"ssh+git", "ssh+git://git@github.com/JuliaGPU/CUDA.jl", cuda},
		{"https with its port", "https://github.com:443/JuliaGPU/CUDA.jl", cuda},
		{"http with its port", "http://github.com:80/JuliaGPU/CUDA.jl", cuda},
		{"git with its port", "git://github.com:9418/JuliaGPU/CUDA.jl", cuda},
		{"short form", "git@github.com:JuliaGPU/CUDA.jl.git", cuda},
		{"short form without .git", "git@github.com:JuliaGPU/CUDA.jl", cuda},
		{"short form from the root", "git@github.com:/JuliaGPU/CUDA.jl", cuda},
		{"short form without a user", "github.com:JuliaGPU/CUDA.jl", cuda},
		{"a user", "https://someone@github.com/JuliaGPU/CUDA.jl", cuda},
		{"a user and a token", "https://x-access-token:abc@github.com/JuliaGPU/CUDA.jl", cuda},
		{"the scheme's case", "HTTPS://github.com/juliagpu/cuda.jl", cuda},
		{"the host's case", "https://GitHub.COM/juliagpu/cuda.jl", cuda},
		{"SSH over the port of https", "ssh://git@ssh.github.com:443/JuliaGPU/CUDA.jl.git", cuda},
		{"www", "https://www.github.com/JuliaGPU/CUDA.jl", cuda},

		// Another repository.
		{"another owner", "https://github.com/mallory/CUDA.jl", "github.com/mallory/cuda.jl"},
		{"another name", "https://github.com/JuliaGPU/CUDA", "github.com/juliagpu/cuda"},
		{"its wiki", "https://github.com/JuliaGPU/CUDA.jl.wiki.git", "github.com/juliagpu/cuda.jl.wiki"},
		{"another forge", "https://gitlab.com/JuliaGPU/CUDA.jl", "gitlab.com/juliagpu/cuda.jl"},
		{"a host that begins the same", "https://github.com.mallory.example/juliagpu/cuda.jl", "github.com.mallory.example/juliagpu/cuda.jl"},
		{"a host that ends the same", "https://notgithub.com/juliagpu/cuda.jl", "notgithub.com/juliagpu/cuda.jl"},
		{"the forge's name as user", "https://github.com@mallory.example/juliagpu/cuda.jl", "mallory.example/juliagpu/cuda.jl"},
		{"a letter swapped for a digit", "https://g1thub.com/juliagpu/cuda.jl", "g1thub.com/juliagpu/cuda.jl"},
		{"a punycode look-alike", "https://xn--gthub-n4a.com/juliagpu/cuda.jl", "xn--gthub-n4a.com/juliagpu/cuda.jl"},
		{"another port", "https://github.com:8443/JuliaGPU/CUDA.jl", "github.com:8443/JuliaGPU/CUDA.jl"},
		{"https on the port of ssh", "https://git.example.org:22/a/b", "git.example.org:22/a/b"},
		{"case counts on a forge we don't know", "https://git.example.org/Team/Tool.git", "git.example.org/Team/Tool"},
		{"nested groups", "https://gitlab.com/Group/Sub/Tool", "gitlab.com/group/sub/tool"},
		{"one part on a forge we don't know", "https://git.example.org/tool.git", "git.example.org/tool"},
		{"IPv4", "http://192.0.2.7/a/b", "192.0.2.7/a/b"},
		{"short form with a number as owner", "git@git.example.org:8443/a", "git.example.org/8443/a"},
		{"bitbucket over the port of https", "ssh://git@altssh.bitbucket.org:443/a/b.git", "bitbucket.org/a/b"},
		{"a home", "ssh://git@git.example.org/~ada/tool", "git.example.org/~ada/tool"},

		// Refused.
		{"nothing", "", ""},
		{"an absolute path", "/srv/git/juliagpu/cuda.jl", ""},
		{"a relative path that reads like a name", "github.com/juliagpu/cuda.jl", ""},
		{"a path up", "../juliagpu/cuda.jl", ""},
		{"a path with a colon", "./github.com:juliagpu/cuda.jl", ""},
		{"a drive", "C:/github.com/juliagpu/cuda.jl", ""},
		{"a drive with backslashes", `C:\github.com\juliagpu\cuda.jl`, ""},
		{"file", "file:///srv/git/juliagpu/cuda.jl", ""},
		{"file with a forge as host", "file://github.com/juliagpu/cuda.jl", ""},
		{"ftp", "ftp://github.com/juliagpu/cuda.jl", ""},
		{"a transport helper", "ext::sh -c id", ""},
		{"a helper around an address", "git::https://github.com/juliagpu/cuda.jl", ""},
		{"no owner", "https://github.com/cuda.jl", ""},
		{"no path", "https://github.com", ""},
		{"no path but a slash", "https://github.com/", ""},
		{"three parts", "https://github.com/juliagpu/cuda.jl/tree", ""},
		{"dot dot", "https://github.com/mallory/../juliagpu/cuda.jl", ""},
		{"dot", "https://github.com/./juliagpu/cuda.jl", ""},
		{"an empty part", "https://github.com//juliagpu/cuda.jl", ""},
		{"two trailing slashes", "https://github.com/juliagpu/cuda.jl//", ""},
		{"an escaped slash", "https://github.com/juliagpu%2Fcuda.jl", ""},
		{"an escaped dot", "https://github.com/juliagpu/cuda%2Ejl", ""},
		{"a query", "https://github.com/juliagpu/cuda.jl?x=1", ""},
		{"a fragment", "https://github.com/juliagpu/cuda.jl#x", ""},
		{"a newline", "https://github.com/juliagpu/cuda.jl\n", ""},
		{"a blank", "https://github.com/juliagpu/cuda.jl ", ""},
		{"a NUL", "https://github.com/juliagpu/cuda.jl\x00", ""},
		{"a backslash", `https://github.com\@mallory.example/juliagpu/cuda.jl`, ""},
		{"two @", "https://a@github.com@mallory.example/juliagpu/cuda.jl", ""},
		{"another host before ?", "http://evil.example?@github.com/juliagpu/cuda.jl", ""},
		{"another host before #", "http://evil.example#@github.com/juliagpu/cuda.jl", ""},
		{"another host before ;", "http://evil.example;@github.com/juliagpu/cuda.jl", ""},
		{"an = in the user", "https://x=y@github.com/juliagpu/cuda.jl", ""},
		{"an option as user", "-oProxyCommand@github.com:juliagpu/cuda.jl", ""},
		{"an escape in the user's host", "https://evil.example/%40@github.com/juliagpu/cuda.jl", ""},
		{"a trailing dot", "https://github.com./juliagpu/cuda.jl", ""},
		{"a Cyrillic letter", "https://gіthub.com/juliagpu/cuda.jl", ""},
		{"a full-width letter in the path", "https://github.com/juliagpu/ｃuda.jl", ""},
		{"an option as host", "ssh://-oProxyCommand=id/juliagpu/cuda.jl", ""},
		{"an option as path", "https://github.com/-juliagpu/cuda.jl", ""},
		{"an empty host", "https:///juliagpu/cuda.jl", ""},
		{"an empty port", "https://github.com:/juliagpu/cuda.jl", ""},
		{"a port that is no number", "https://github.com:https/juliagpu/cuda.jl", ""},
		{"a port with a zero before it", "https://github.com:0443/juliagpu/cuda.jl", ""},
		{"IPv6", "https://[2001:db8::1]/a/b", ""},
		{".git twice", "https://github.com/juliagpu/cuda.jl.git.git", ""},
		{".GIT", "https://github.com/juliagpu/cuda.jl.GIT", ""},
		{"nothing but .git", "https://github.com/juliagpu/.git", ""},
		{"an SSH alias", "work:juliagpu/cuda.jl", ""},
		{"a port in the short form", "github.com:22/juliagpu/cuda.jl", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := FromURL(tt.url)
			assert.Equal(t, tt.want, got.String(), "FromURL(%q)", tt.url)
			if tt.want == "" {
				require.ErrorIs(t, err, ErrNotARepository)
				return
			}
			require.NoError(t, err)
			again, err := Parse(got.String())
			require.NoError(t, err)
			require.Equal(t, got, again)
		})
	}
}

// TestParse shows that a name has one spelling: the others are refused.
func TestParse(t *testing.T) {
	for _, s := range []string{cuda, "git.example.org/Team/Tool", "git.example.org:8443/a/b"} {
		n, err := Parse(s)
		require.NoError(t, err, s)
		require.Equal(t, s, n.String())
	}
	for _, s := range []string{
		"", "github.com", "github.com/", "/juliagpu/cuda.jl", "GitHub.com/juliagpu/cuda.jl",
		"github.com/JuliaGPU/cuda.jl", "github.com/juliagpu/cuda.jl.git", "github.com/juliagpu/cuda.jl/",
		"https://github.com/juliagpu/cuda.jl", "git@github.com:juliagpu/cuda.jl", "www.github.com/a/b",
		"ssh.github.com:443/a/b", "github.com:0/a/b", "github.com:99999999/a/b", "github.com:/a/b", "a b/c",
	} {
		_, err := Parse(s)
		require.ErrorIs(t, err, ErrNotARepository, s)
	}
}

// FuzzFromURL holds the law that makes names comparable: a name's text is its
// only spelling, and it never reads as an address of another repository.
func FuzzFromURL(f *testing.F) {
	for _, s := range []string{
		"https://github.com/JuliaGPU/CUDA.jl.git", "git@github.com:JuliaGPU/CUDA.jl", "ssh://git@git.example.org:2222/a/b",
		"https://github.com@mallory.example/a/b", "https://github.com/a/b.git.git", "a.b:c/.git", "git@h:1/.GIT",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := FromURL(s)
		if err != nil {
			require.True(t, n.IsZero(), "an error comes with no name")
			return
		}
		again, err := Parse(n.String())
		require.NoError(t, err, "Parse(%q) of FromURL(%q)", n, s)
		require.Equal(t, n, again)
		fromURL, err := FromURL("https://" + n.String())
		require.NoError(t, err)
		if n.String() != fromURL.String() { // only the port of https may go
			require.Contains(t, n.String(), ":443/")
		}
	})
}
