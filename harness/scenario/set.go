package scenario

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// setFlag begins the place of what the command line sets.
const setFlag = "--set "

// recordingKeys are the keys beside the one that names a recorded file.
var recordingKeys = []string{"pace", "speed", "repeat"}

// applySet applies one "path=value" of the command line to the document.
func applySet(root *value, arg string) Errors {
	at := place{file: setFlag + oneLine(arg)}
	path, text, ok := strings.Cut(arg, "=")
	steps := strings.Split(path, ".")
	if !ok || slices.Contains(steps, "") {
		return Errors{at.fault("no PATH=VALUE; allowed: a dotted path and a YAML value, such as load.rate=200/s or gates.0=p95_latency < 10ms")}
	}
	if len(steps) > maxNested {
		return Errors{at.fault("nested too deep; allowed: %d levels", maxNested)}
	}
	v, errs := parseDocument([]byte(text), at.file, true)
	if len(errs) > 0 {
		return errs
	}
	if root.form != mapping && root.form != null {
		return nil // reported by check
	}
	if name, ok := strings.CutPrefix(path, "load.keys."); ok && slices.Contains(recordings, name) {
		replaceKeys(root)
	}
	if err := put(root, steps, 0, v, at); err != nil {
		return Errors{err}
	}
	return nil
}

// replaceKeys makes room for a recorded file, which replaces the whole choice of
// keys: nothing of what the scenario says stays. What the command line said about
// the recording before does.
func replaceKeys(root *value) {
	keys := root.get("load").get("keys")
	if keys == nil || keys.form != mapping {
		return
	}
	keys.fields = slices.DeleteFunc(keys.fields, func(f *field) bool {
		return f.at.line > 0 || !slices.Contains(recordingKeys, f.name)
	})
}

// put sets the value at steps[i:] below v.
func put(v *value, steps []string, i int, new *value, at place) *Error {
	step, last := steps[i], i == len(steps)-1
	so := oneLine(strings.Join(steps[:i], "."))
	if v.form == null { // created on the way
		v.form = mapping
		if i > 0 {
			v.at = at
		}
		if step == "0" {
			v.form = list
		}
	}
	switch v.form {
	case mapping:
		f := v.field(step)
		if f == nil {
			f = &field{step, at, &value{at: at}}
			v.fields = append(v.fields, f)
		}
		if last {
			f.at, f.value = at, new
			return nil
		}
		return put(f.value, steps, i+1, new, at)
	case list:
		n, err := strconv.Atoi(step)
		if err != nil || n < 0 || n > len(v.items) {
			return at.fault("%s is a list of %d; allowed after it: an index from 0 to %d, which appends", so, len(v.items), len(v.items))
		}
		if n == len(v.items) {
			v.items = append(v.items, &value{at: at})
		}
		if last {
			v.items[n] = new
			return nil
		}
		return put(v.items[n], steps, i+1, new, at)
	default:
		return at.fault("%s is %s and has no %s inside; allowed: set %s as a whole", so, quote(v.text), quote(step), so)
	}
}

// replaceNew puts the system that the command line names in the place of the
// new one. The kinds that are set up keep the settings that the file has; what else
// the command line sets of it would be lost, and is refused.
func replaceNew(root *value, name string) *Error {
	at := place{file: "--system " + oneLine(name)}
	text := func(s string) *value { return &value{at: at, form: scalar, text: s, data: s} }
	system := &value{at: at, form: mapping}
	add := func(key string, v *value) { system.fields = append(system.fields, &field{key, at, v}) }
	switch {
	case strings.Contains(name, "://"):
		add("kind", text(string(KindURL)))
		add("url", text(name))
	case name == string(KindCommand):
		return at.fault(`a command needs its arguments; allowed: --set 'systems.new={kind: command, command: [PROGRAM, ARG, "{listen}", "{upstream}"]}'`)
	case name == string(KindURL):
		return at.fault("no address; allowed: the URL itself, such as --system http://127.0.0.1:8080")
	case name == string(KindContainer):
		return at.fault(`a container needs an image; allowed: --set 'systems.new={kind: container, image: "NAME:TAG"}'`)
	case slices.Contains(kinds, Kind(name)):
		add("kind", text(name))
	default:
		return at.fault("unknown system; allowed: optimizer, nginx, varnish, haproxy, direct, or a URL that begins with http:// or https://")
	}
	old := root.get("systems").get("new")
	var kept []string
	switch kind := Kind(name); {
	case kind == KindOptimizer:
		kept = []string{"config", "upstream_tls", "limits"}
	case kind.Packaged():
		kept = []string{"config", "upstream_tls"}
	}
	if old != nil {
		for _, f := range old.fields {
			switch {
			case slices.Contains(kept, f.name):
				system.fields = append(system.fields, f)
			case strings.HasPrefix(f.at.file, setFlag):
				return f.at.fault("%s takes the place of the system that has it; allowed beside it: %s", at.file, cmp.Or(strings.Join(kept, ", "), "no key of systems.new"))
			}
		}
	}
	return put(root, []string{"systems", "new"}, 0, system, at)
}
