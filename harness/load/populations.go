package load

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"phasegate/harness/scenario"
)

// populations are the kinds of read beside a load's main one.
type populations struct {
	of      []population
	which   stream
	member  stream // of a population's keys
	field   stream // of the values of its fields
	from    uint32 // target of the first one
	targets int    // of all of them
}

type population struct {
	upTo   float64 // cumulated share of all requests
	path   [2]string
	keyed  bool
	count  uint32
	first  uint32  // of its targets
	extras []extra // every combination of its fields' values; empty for none
}

// maxExtras bounds the combinations of a population's field values.
const maxExtras = 10_000

// prepare checks them and numbers their targets; vary must be called after it.
func (ps *populations) prepare(l scenario.Load, seed uint64) error {
	ps.which, ps.member, ps.field = newStream(seed, populationStream), newStream(seed, memberStream), newStream(seed, fieldStream)
	var faults []error
	sum := 0.0
	for i, described := range l.Also {
		fault := func(format string, args ...any) {
			faults = append(faults, fmt.Errorf("number %d: "+format, append([]any{i + 1}, args...)...))
		}
		if !(described.Share >= 0 && sum+described.Share <= 1) {
			fault("a share of %v beside %v; allowed is 0 to 1 in all", described.Share, sum)
		}
		if described.Count < 1 || described.Count > maxKeys {
			fault("%d keys; allowed is 1 to %d", described.Count, maxKeys)
			continue
		}
		if err := checkPath(described.Path); err != nil {
			fault("path: %w", err)
		}
		sum += described.Share
		p := population{upTo: sum, count: uint32(described.Count), first: uint32(ps.targets)}
		p.path[0], p.path[1], p.keyed = strings.Cut(described.Path, keyMark)
		headers := combinations(described.Fields)
		if len(headers) > maxExtras {
			fault("%d combinations of header fields; allowed are %d", len(headers), maxExtras)
			continue
		}
		for _, header := range headers {
			if described.Close {
				header = append(slices.Clone(header), [2]string{"Connection", "close"})
			}
			if len(header) > 0 {
				p.extras = append(p.extras, extra{header: header})
			}
		}
		ps.of = append(ps.of, p)
		ps.targets += described.Count
	}
	return errors.Join(faults...)
}

// combinations returns every choice of one value for each field; a single empty
// one without fields.
func combinations(fields []scenario.Field) [][][2]string {
	all := [][][2]string{nil}
	for _, f := range fields {
		var next [][][2]string
		for _, header := range all {
			for _, v := range f.Values {
				if len(next) > maxExtras {
					return next
				}
				next = append(next, append(slices.Clone(header), [2]string{f.Name, v}))
			}
		}
		all = next
	}
	return all
}

// vary tells which representation of the upstream each request selects.
func (ps *populations) vary(fields []string) {
	for _, p := range ps.of {
		for i, x := range p.extras {
			p.extras[i] = newExtra(x.header, nil, fields)
		}
	}
}

// share is what they get of all requests together.
func (ps *populations) share() float64 {
	if len(ps.of) == 0 {
		return 0
	}
	return ps.of[len(ps.of)-1].upTo
}

// at returns position i's request; false if it is of no population. Key and
// field values are drawn apart, so that every key is asked for in every way.
func (ps *populations) at(i uint64) (request, bool) {
	if len(ps.of) == 0 {
		return request{}, false
	}
	u := ps.which.unit(i)
	for k := range ps.of {
		p := &ps.of[k]
		if u >= p.upTo {
			continue
		}
		r := request{method: "GET", target: ps.from + p.first + ps.member.below(i, p.count)}
		if len(p.extras) > 0 {
			r.extra = &p.extras[ps.field.below(i, uint32(len(p.extras)))]
		}
		return r, true
	}
	return request{}, false
}

func (ps *populations) appendTarget(dst []byte, target uint32) []byte {
	k := len(ps.of) - 1
	for ps.of[k].first > target {
		k--
	}
	p := &ps.of[k]
	dst = append(dst, p.path[0]...)
	if !p.keyed {
		return dst
	}
	dst = append(dst, 'k')
	dst = strconv.AppendUint(dst, uint64(target-p.first)+1, 10)
	return append(dst, p.path[1]...)
}
