package optimizer

import (
	"bytes"
	"path"
	"slices"
)

// queryRules say which differences between queries make no difference to the resource.
// The zero value: all do.
type queryRules struct {
	ignore []string // names of parameters that are dropped, with * for any run of characters
	sort   bool     // by name
}

func (q *queryRules) on() bool { return q.sort || len(q.ignore) > 0 }

// normal returns the target, or key, as it is asked for and kept: names are compared as
// they were sent, so that one that is escaped in another way counts as another.
func (q *queryRules) normal(target []byte) []byte {
	at := bytes.IndexByte(target, '?')
	if at < 0 || !q.on() {
		return target
	}
	members := bytes.Split(target[at+1:], []byte("&"))
	members = slices.DeleteFunc(members, func(member []byte) bool {
		name := string(parameter(member))
		return slices.ContainsFunc(q.ignore, func(pattern string) bool {
			fits, _ := path.Match(pattern, name) // valid
			return fits
		})
	})
	if q.sort {
		slices.SortStableFunc(members, func(a, b []byte) int { return bytes.Compare(parameter(a), parameter(b)) })
	}
	if len(members) == 0 {
		return target[:at:at]
	}
	return append(bytes.Clone(target[:at+1]), bytes.Join(members, []byte("&"))...)
}

func parameter(member []byte) []byte {
	name, _, _ := bytes.Cut(member, []byte("="))
	return name
}
