// Package drop turns a process of root's into one of another user, for good.
package drop

// A User is whom a process becomes.
type User struct {
	UID, GID int   // neither is 0
	Groups   []int // supplementary groups, all others are left; none is 0
}
