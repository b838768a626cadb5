package scenario

import (
	"fmt"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"phasegate/scenarios"
)

// Options choose what of a scenario is run, and change it. The zero value
// compiles the file as it stands for the quick profile.
type Options struct {
	Profile  string   `json:"profile"`            // "quick" (default), "standard" or "full"
	Set      []string `json:"set,omitempty"`      // "path=value" with a YAML value, applied in order
	Seed     *uint64  `json:"seed,omitempty"`     // replaces the scenario's
	System   string   `json:"system,omitempty"`   // replaces systems.new: "optimizer", "direct" or a URL
	Embedded bool     `json:"embedded,omitempty"` // the source is embedded: Plan.Source stays ""
}

// Open compiles a scenario by file or name: a file if name has a separator or
// ends in .yaml or .yml, or if there is such a file; else the embedded
// scenario of that name. readFile is os.ReadFile but in tests.
func Open(name string, readFile func(string) ([]byte, error), opts Options) (*Plan, error) {
	src, err := readFile(name)
	if err == nil {
		return Compile(src, name, opts)
	}
	if strings.ContainsAny(name, `/\`) || strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml") {
		return nil, fmt.Errorf("read scenario: %w", err)
	}
	src, ok := scenarios.Read(name)
	if !ok {
		return nil, fmt.Errorf("no scenario %s%s; allowed: a file, or one of %s",
			quote(name), meant(name, scenarios.Names()), listed(scenarios.Names()))
	}
	opts.Embedded = true
	return Compile(src, "scenarios/"+name+".yaml", opts)
}

// Compile reads the scenario in src and returns its plan for one profile.
// File is its name in messages. The error is [Errors].
func Compile(src []byte, file string, opts Options) (*Plan, error) {
	root, errs := parseDocument(src, file, false)
	if root == nil {
		return nil, errs
	}
	c := &compiler{opts: opts, errs: errs, plan: &Plan{Source: file, Origin: Origin{slices.Clone(src), file, opts}}}
	if opts.Embedded {
		c.plan.Source = ""
	}
	for _, arg := range opts.Set {
		c.errs = append(c.errs, applySet(root, arg)...)
	}
	if opts.System != "" && (root.form == mapping || root.form == null) {
		if err := replaceNew(root, opts.System); err != nil {
			c.errs = append(c.errs, err)
		}
	}
	if root.form == null {
		root.form = mapping // an empty file lacks what is required, and that is said
	}
	c.check(root, &grammar, "")
	if root.form == mapping {
		c.scenario(root)
	}
	if len(c.errs) > 0 {
		c.errs.sort()
		return nil, c.errs
	}
	return c.plan, nil
}

// compiler fills a plan from a document and collects the faults on the way.
// Values that check could not read were reported there; here they count as
// absent.
type compiler struct {
	opts Options
	errs Errors
	plan *Plan
}

func (c *compiler) failAt(at place, format string, args ...any) {
	c.errs = append(c.errs, at.fault(format, args...))
}

// fail reports a fault of v, named by its path.
func (c *compiler) fail(v *value, format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	if v.path != "" {
		msg = v.path + ": " + msg
	}
	c.failAt(v.at, "%s", msg)
}

func (c *compiler) notice(format string, args ...any) {
	c.plan.Notices = append(c.plan.Notices, fmt.Sprintf(format, args...))
}

// read returns what a key's value stands for, and fallback where it is absent
// or was reported.
func read[T any](v *value, name string, fallback T) T {
	if x := v.get(name); x != nil {
		if t, ok := x.read.(T); ok {
			return t
		}
	}
	return fallback
}

// sound reports whether every named key is either absent or was understood,
// so that checks across them make sense.
func (v *value) sound(names ...string) bool {
	for _, name := range names {
		if x := v.get(name); x != nil && x.read == nil {
			return false
		}
	}
	return true
}

func (c *compiler) scenario(root *value) {
	p := c.plan
	p.Name = read(root, "name", "")
	p.Title = read(root, "title", p.Name)
	p.Seed = read(root, "seed", uint64(1))
	if c.opts.Seed != nil {
		p.Seed = *c.opts.Seed
	}
	p.Confidence = read(root, "confidence", 0.95)
	if p.Confidence < 0.5 || p.Confidence >= 1 {
		c.fail(root.get("confidence"), "%s is out of range; allowed: at least 50%% and below 100%%", quote(root.get("confidence").text))
	}
	p.AbortOnFailure = read(root, "abort", "never") == "on_failure"
	c.profile(root)
	c.systems(root)
	c.upstream(root)
	c.load(root)
	c.prewarm(root)
	c.sequential(root)
	c.gates(root)
	c.triggers(root)
	c.drills(root)
}

func (c *compiler) profile(root *value) {
	all := root.get("profiles")
	if all == nil || all.form != mapping {
		return
	}
	name := c.opts.Profile
	if name == "" {
		name = profiles[0]
	}
	c.plan.Profile = name
	chosen := all.get(name)
	if chosen == nil {
		c.fail(all, "no profile %s%s; allowed: %s", quote(name), meant(name, written(all)), listed(written(all)))
		return
	}
	c.plan.Warmup = read(chosen, "warmup", time.Duration(0))
	c.plan.Steady = read(chosen, "steady", time.Duration(0))
	c.plan.Extensions = read(chosen, "extensions", 0)
	c.plan.TimeScale = read(chosen, "time_scale", 1.0)
	if scale := c.plan.TimeScale; scale != 1 {
		c.notice("time scale %v: the triggers' times and windows are divided by it", scale)
	}
}

// written lists the keys of a mapping that have a value.
func written(v *value) []string {
	var out []string
	for _, f := range v.fields {
		if f.value.form != null {
			out = append(out, f.name)
		}
	}
	return out
}

// placeholder is what looks like one in commands and paths.
var placeholder = regexp.MustCompile(`\{[A-Za-z0-9_.-]+\}`)

var placeholders = []string{"{listen}", "{upstream}", "{upstream_tls}", "{ca}", "{admin}"}

func (c *compiler) systems(root *value) {
	systems := root.get("systems")
	newSystem, oldSystem := systems.get("new"), systems.get("old")
	newShare, oldShare := c.traffic(root)
	if oldSystem == nil && oldShare > 0 {
		c.plan.Systems = append(c.plan.Systems, System{Name: Old, Kind: KindDirect, Share: oldShare})
	}
	for _, arm := range []struct {
		name  string
		v     *value
		share float64
	}{{Old, oldSystem, oldShare}, {New, newSystem, newShare}} {
		if arm.v != nil && arm.v.form == mapping {
			c.plan.Systems = append(c.plan.Systems, c.system(root, arm.v, arm.name, arm.share))
		}
	}
	if root.get("upstream") != nil {
		return
	}
	for _, s := range c.plan.Systems {
		if s.Kind != "" && s.Kind != KindURL {
			c.failAt(root.at, "upstream is missing, and the %s system is of kind %s; allowed: without upstream, a single system of kind url", s.Name, s.Kind)
			return
		}
	}
	if len(c.plan.Systems) > 1 {
		c.failAt(root.at, "upstream is missing, and there are two systems; allowed: without upstream, a single system of kind url")
	}
}

// traffic returns the shares of new and old.
func (c *compiler) traffic(root *value) (newShare, oldShare float64) {
	traffic := root.get("traffic")
	if traffic == nil || !traffic.sound("new", "old") {
		return 1, 0
	}
	n, o := traffic.get("new"), traffic.get("old")
	switch {
	case n == nil && o == nil:
		return 1, 0
	case n == nil:
		oldShare = read(traffic, "old", 0.0)
		newShare = 1 - oldShare
	case o == nil:
		newShare = read(traffic, "new", 1.0)
		oldShare = 1 - newShare
	default:
		newShare, oldShare = read(traffic, "new", 1.0), read(traffic, "old", 0.0)
	}
	if math.Abs(newShare+oldShare-1) > 1e-9 {
		c.fail(o, "new %s and old %s are %s together; allowed: 100%%, or leave one out", percent(newShare), percent(oldShare), percent(newShare+oldShare))
	} else if newShare == 0 {
		at := n
		if at == nil {
			at = o
		}
		c.fail(at, "the new system gets no traffic, so nothing would be judged; allowed: traffic.new above 0%%")
	}
	return newShare, oldShare
}

func percent(share float64) string {
	return strconv.FormatFloat(math.Round(share*1e8)/1e6, 'f', -1, 64) + "%"
}

func (c *compiler) system(root, v *value, name string, share float64) System {
	s := System{Name: name, Share: share, Kind: Kind(read(v, "kind", ""))}
	if s.Kind == "" {
		return s // reported
	}
	for _, owned := range []struct {
		key   string
		kinds []Kind
	}{
		{"command", []Kind{KindCommand, KindContainer}}, {"metrics", []Kind{KindCommand, KindContainer}}, {"url", []Kind{KindURL}},
		{"image", []Kind{KindContainer}}, {"dockerfile", []Kind{KindContainer}}, {"env", []Kind{KindContainer}},
		{"port", []Kind{KindContainer}}, {"limits", []Kind{KindContainer, KindOptimizer}},
		{"upstream_tls", []Kind{KindOptimizer, KindNginx, KindVarnish, KindHAProxy}},
	} {
		x := v.get(owned.key)
		if x != nil && !slices.Contains(owned.kinds, s.Kind) {
			c.fail(x, "not a key of kind %s; allowed: with kind %s", s.Kind, listed(owned.kinds))
		} else if x == nil && owned.key == string(s.Kind) {
			c.failAt(v.at, "%s.%s is missing; allowed: %s", v.path, owned.key, systemShape.keyNamed(owned.key).describe())
		}
	}
	if config := v.get("config"); config != nil && config.form == mapping {
		switch {
		case s.Kind == KindOptimizer:
			s.Config, s.ConfigAt = config.any().(map[string]any), config.at.String()
		case s.Kind.Packaged():
		default:
			c.notice("systems.%s.config is not applied: a system of kind %s has settings of its own", name, s.Kind)
		}
	}
	limits := v.get("limits")
	s.Limit = Limits{Memory: read(limits, "memory", int64(0)), CPUs: read(limits, "cpus", 0.0)}
	switch s.Kind {
	case KindOptimizer:
		s.UpstreamTLS = read(v, "upstream_tls", false)
		s.Cache = optimizerCache(v.get("config"))
	case KindNginx, KindVarnish, KindHAProxy:
		c.packaged(v, &s)
	case KindCommand:
		if s.Command = c.command(root, v.get("command"), true); s.Command != nil {
			s.CommandAt = v.get("command").items[0].at.String()
		}
		s.Metrics = c.metrics(v)
	case KindContainer:
		c.container(root, v, &s)
	case KindURL:
		s.URL = read[*url.URL](v, "url", nil)
	}
	return s
}

func (s *shape) keyNamed(name string) *shape {
	i := slices.IndexFunc(s.keys, func(k key) bool { return k.name == name })
	return &s.keys[i].shape
}

// container reads what a system of kind container runs.
func (c *compiler) container(root, v *value, s *System) {
	image, dockerfile := v.get("image"), v.get("dockerfile")
	if (image == nil) == (dockerfile == nil) {
		c.failAt(v.at, "%s: %s of image and dockerfile; allowed: one of them", v.path, map[bool]string{true: "neither", false: "both"}[image == nil])
	}
	s.Image, s.Dockerfile, s.Port = read(v, "image", ""), read(v, "dockerfile", ""), read(v, "port", 0)
	if s.Port == 8081 {
		c.fail(v.get("port"), "8081 is {admin}; allowed: another one")
	}
	s.Command = c.command(root, v.get("command"), false)
	s.Metrics = c.metrics(v)
	if env := v.get("env"); env != nil && env.form == mapping {
		s.Env = map[string]string{}
		for _, f := range env.fields {
			if f.value.form != scalar {
				c.fail(f.value, "%s; allowed: text", f.value.describe())
				continue
			}
			c.placeholders(f.value)
			s.Env[f.name] = f.value.text
		}
	}
}

// placeholders checks the placeholders in a text and returns them.
func (c *compiler) placeholders(v *value) []string {
	used := placeholder.FindAllString(v.text, -1)
	for _, p := range used {
		if !slices.Contains(placeholders, p) {
			c.fail(v, "%s has the unknown placeholder %s%s; allowed: %s", quote(v.text), p, meant(p, placeholders), listed(placeholders))
		}
	}
	return used
}

// command checks an argument vector: without an address to listen on nobody
// could reach a program, and without one of the upstream it could reach nobody.
// An image may have both in its environment, so there they aren't needed.
func (c *compiler) command(root, v *value, needed bool) []string {
	if v == nil || v.form != list {
		return nil
	}
	if needed && (len(v.items) == 0 || v.items[0].text == "") {
		c.fail(v, "no program; allowed: a program and its arguments")
		return nil
	}
	var args, used []string
	for _, item := range v.items {
		args = append(args, item.text)
		used = append(used, c.placeholders(item)...)
	}
	if !needed {
		return args
	}
	if !slices.Contains(used, "{listen}") {
		c.fail(v, "no argument has {listen}; allowed: the address to listen on passed as {listen}")
	}
	if !slices.Contains(used, "{upstream}") && !slices.Contains(used, "{upstream_tls}") && root.get("upstream").get("listen") == nil {
		c.fail(v, "no argument has {upstream} or {upstream_tls}; allowed: one of them, or a fixed address by upstream.listen")
	}
	return args
}

// metrics checks where a command is said to serve its metrics.
func (c *compiler) metrics(v *value) string {
	m := v.get("metrics")
	if m == nil || m.form != scalar {
		return ""
	}
	const allowed = "allowed: a URL such as http://{admin}/metrics, with {admin} or {listen} as its host"
	for _, p := range placeholder.FindAllString(m.text, -1) {
		if p != "{admin}" && p != "{listen}" {
			c.fail(m, "%s has the unknown placeholder %s; %s", quote(m.text), p, allowed)
			return ""
		}
	}
	u, err := url.Parse(placeholder.ReplaceAllString(m.text, "127.0.0.1:1"))
	if err != nil || u.Scheme != "http" || u.Hostname() == "" || u.User != nil {
		c.fail(m, "%s is not the http address of metrics; %s", quote(m.text), allowed)
		return ""
	}
	return m.text
}
