package scenario

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// check compares a document with the grammar: every value is read or reported,
// every key is known or reported, every required key is there or reported.
func (c *compiler) check(v *value, s *shape, path string) {
	v.path = path
	switch {
	case v.form == null, v.bad && v.form == scalar:
	case v.form == scalar && s.scalar != nil:
		read, err := s.scalar.parse(v.text)
		switch {
		case err == nil:
			v.read = read
		case s.scalar.allowed == "":
			c.fail(v, "%v", err)
		default:
			c.fail(v, "%v; allowed: %s", err, s.scalar.allowed)
		}
	case v.form == mapping && s.open:
	case v.form == mapping && s.keys != nil:
		c.checkKeys(v, s, path)
	case v.form == list && s.item != nil:
		if s.atMost > 0 && len(v.items) > s.atMost {
			c.fail(v, "%d items; allowed: at most %d", len(v.items), s.atMost)
		}
		for i, item := range v.items {
			itemPath := path + "." + strconv.Itoa(i)
			if c.check(item, s.item, itemPath); item.form == null {
				c.fail(item, "nothing; allowed: %s", s.item.describe())
			}
		}
	default:
		c.fail(v, "%s; allowed: %s", v.describe(), s.describe())
	}
}

func (c *compiler) checkKeys(v *value, s *shape, path string) {
	for _, f := range v.fields {
		i := slices.IndexFunc(s.keys, func(k key) bool { return k.name == f.name })
		if i < 0 {
			in := path
			if in == "" {
				in = "a scenario"
			}
			c.failAt(f.at, "unknown key %s in %s%s; allowed: %s", quote(f.name), in, meant(f.name, s.keyNames()), listed(s.keyNames()))
			continue
		}
		c.check(f.value, &s.keys[i].shape, join(path, f.name))
	}
	for i := range s.keys {
		if k := &s.keys[i]; k.required && !v.bad && v.get(k.name) == nil {
			c.missing(v, path, k)
		}
	}
}

// missing reports a required key, at the key if it has no value.
func (c *compiler) missing(v *value, path string, k *key) {
	at := v.at
	if f := v.field(k.name); f != nil {
		at = f.value.at
	}
	c.failAt(at, "%s is missing; allowed: %s", join(path, k.name), k.shape.describe())
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// keyNames lists the keys that this version knows.
func (s *shape) keyNames() []string {
	var out []string
	for _, k := range s.keys {
		out = append(out, k.name)
	}
	return out
}

// describe says what is allowed, for messages.
func (s *shape) describe() string {
	var ways []string
	if s.scalar != nil {
		allowed := s.scalar.allowed
		if s.scalar == aCondition {
			allowed = conditionAllowed
		}
		ways = append(ways, allowed)
	}
	if s.keys != nil {
		ways = append(ways, "a mapping with "+listed(s.keyNames()))
	} else if s.open && s.scalar == nil {
		ways = append(ways, "a mapping")
	}
	if s.item != nil {
		ways = append(ways, "a list of "+s.item.describe())
	}
	return strings.Join(ways, ", or ")
}

// Schema returns the JSON Schema (2020-12) of scenario files, for editors. It
// is made from the grammar that Compile checks against. What it can't say,
// such as shares that sum to 100 %, only Compile checks.
func Schema() []byte {
	root := grammar.schema()
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Phasegate scenario"
	root["description"] = "One phase of a rollout: upstream, systems, traffic split, load, gates and rollback triggers."
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("scenario: the grammar has no JSON form: %v", err)) // a fault of grammar.go, met by any test
	}
	return append(out, '\n')
}

// schema returns the JSON Schema of one shape.
func (s *shape) schema() map[string]any {
	var ways []any
	if s.scalar != nil {
		way := make(map[string]any, len(s.scalar.schema))
		for k, v := range s.scalar.schema {
			way[k] = v
		}
		ways = append(ways, way)
	}
	if s.keys != nil {
		properties, required := map[string]any{}, []string{}
		for i := range s.keys {
			k := &s.keys[i]
			property := k.shape.schema()
			property["description"] = k.help
			properties[k.name] = property
			if k.required {
				required = append(required, k.name)
			}
		}
		way := map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
		if len(required) > 0 {
			way["required"] = required
		}
		ways = append(ways, way)
	} else if s.open && s.scalar == nil {
		ways = append(ways, map[string]any{"type": "object"})
	}
	if s.item != nil {
		way := map[string]any{"type": "array", "items": s.item.schema()}
		if s.atMost > 0 {
			way["maxItems"] = s.atMost
		}
		ways = append(ways, way)
	}
	if len(ways) == 1 {
		return ways[0].(map[string]any)
	}
	return map[string]any{"anyOf": ways}
}

// conditionPattern is a regular expression for what ParseCondition reads: each
// metric with the values of its unit.
func conditionPattern() string {
	values := map[Unit]string{
		Seconds:      `(` + numberPattern + `(ns|us|µs|ms|s|m|min|h|hour|d|day) ?)+`,
		Bytes:        numberPattern + `([kKMGT]?B|[KMGT]iB)`,
		BytesPerHour: numberPattern + `([kKMGT]?B|[KMGT]iB) ?/ ?(s|m|min|h|hour|d|day)`,
		Share:        numberPattern + `%?`,
		PerSecond:    numberPattern + `/ ?(s|m|min|h|hour|d|day)`,
		Count:        `[0-9]+`,
		Ratio:        numberPattern + `x?`,
		Dollars:      `\$` + numberPattern,
		Points:       numberPattern,
	}
	byUnit := map[Unit][]string{Seconds: {`p[1-9][0-9]{0,5}_latency`}}
	units := []Unit{Seconds}
	for _, m := range catalogue {
		if m.Estimator == ByQuantile {
			continue
		}
		if !slices.Contains(units, m.Unit) {
			units = append(units, m.Unit)
		}
		byUnit[m.Unit] = append(byUnit[m.Unit], regexp.QuoteMeta(m.Name))
	}
	var ways []string
	for _, u := range units {
		ways = append(ways, `(`+strings.Join(byUnit[u], "|")+`) ?(<|<=|>|>=) ?`+values[u])
	}
	return `^ *(` + strings.Join(ways, "|") + `) *$`
}
