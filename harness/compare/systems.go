package compare

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"phasegate/harness/scenario"
)

// Named is a system as the command line names it.
type Named struct {
	Name   string
	System string // a kind or a URL, for scenario.Options.System; "" if Config says it all
	Config string // YAML of a whole system
}

// Options are the scenario's with this system as the new one.
func (n Named) Options(opts scenario.Options) scenario.Options {
	opts.Set = slices.Clone(opts.Set)
	if n.Config != "" {
		opts.Set = append(opts.Set, "systems.new="+n.Config)
	}
	opts.System = n.System
	return opts
}

// folder is a name that results go under.
var folder = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// ParseSystems reads lists of systems, separated by commas outside of brackets
// and quotation marks: a kind (nginx), a URL, or NAME= and one of these or the
// YAML of a system: "mine={kind: command, command: [a, b]}".
func ParseSystems(lists []string) ([]Named, error) {
	const allowed = "allowed: a kind such as optimizer or nginx, a URL, or NAME={kind: command, command: [PROGRAM, ARG, …]}"
	var out []Named
	for _, list := range lists {
		items, err := split(list)
		if err != nil {
			return nil, fmt.Errorf("--systems %s: %w; %s", list, err, allowed)
		}
		for _, item := range items {
			n := Named{Name: item, System: item}
			if name, value, ok := strings.Cut(item, "="); ok && folder.MatchString(name) {
				n = Named{Name: name, System: value}
			} else if u, err := url.Parse(item); err == nil && u.Host != "" {
				n.Name = strings.NewReplacer(":", "-", "[", "", "]", "").Replace(u.Host)
			}
			if strings.HasPrefix(n.System, "{") {
				n.System, n.Config = "", n.System
			}
			switch {
			case n.System == "" && n.Config == "" || !folder.MatchString(n.Name):
				return nil, fmt.Errorf("--systems: %q is no system; %s", item, allowed)
			case slices.ContainsFunc(out, func(o Named) bool { return o.Name == n.Name }):
				return nil, fmt.Errorf("--systems: two systems are named %q; allowed: each name once, as in a=%s,b=%s", n.Name, n.System, n.System)
			}
			out = append(out, n)
		}
	}
	return out, nil
}

// split cuts at commas that aren't within brackets or quotation marks.
func split(list string) ([]string, error) {
	var items []string
	var depth int
	var quoted rune
	start := 0
	for i, r := range list {
		switch {
		case quoted != 0:
			if r == quoted {
				quoted = 0
			}
		case r == '"' || r == '\'':
			quoted = r
		case strings.ContainsRune("{[", r):
			depth++
		case strings.ContainsRune("}]", r):
			depth--
		case r == ',' && depth == 0:
			items = append(items, strings.TrimSpace(list[start:i]))
			start = i + 1
		}
		if depth < 0 {
			return nil, fmt.Errorf("a bracket is closed at %q that was not opened", list[:i+1])
		}
	}
	if depth > 0 || quoted != 0 {
		return nil, fmt.Errorf("a bracket or a quotation mark is not closed")
	}
	return append(items, strings.TrimSpace(list[start:])), nil
}
