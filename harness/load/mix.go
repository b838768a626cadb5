package load

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"sort"
	"strconv"
	"strings"

	"phasegate/harness/scenario"
)

// request is what is asked for at one position of the sequence.
type request struct {
	method string
	target uint32 // an index; the source renders it
	extra  *extra // nil for most
}

// extra is what a recorded request brings besides its method and target.
type extra struct {
	header [][2]string // names and values, in order; none that frames the message or names the host
	body   []byte
	asks   asks // of the header
	// variant is what the header selects of the upstream's representations, as
	// wire.Variant names it.
	variant string
}

// content is the request's body; nil for none.
func (r request) content() []byte {
	if r.extra == nil {
		return nil
	}
	return r.extra.body
}

// cacheable reports whether a shared cache may answer r at all.
func (r request) cacheable() bool { return r.method == "GET" || r.method == "HEAD" }

// source is a request sequence: a pure function of the position, so the same
// configuration and seed give the same requests in the same order, whatever
// the timing of a run.
type source interface {
	at(i uint64) request
	// appendTarget renders a request target: path and query.
	appendTarget(dst []byte, target uint32) []byte
	// targets is the number of distinct ones.
	targets() int
	// popular returns the reads asked for most, in falling order; at most n.
	popular(n int) []request
}

// The streams of draws. A position has one draw in each, so that changing the
// split, say, leaves the keys as they were.
const (
	splitStream = iota + 1
	keyStream
	hotStream
	writeStream
	arrivalStream
	protocolStream
	populationStream
	memberStream
	fieldStream
)

// stream is a sequence of uniform draws in which each can be had by its
// position alone: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) as a hash of a
// counter.
type stream uint64

const gamma = 0x9e3779b97f4a7c15

func newStream(seed, id uint64) stream { return stream(mix64(mix64(seed) + id*gamma)) }

func (s stream) at(i uint64) uint64 { return mix64(uint64(s) + (i+1)*gamma) }

// unit returns a draw from [0, 1).
func (s stream) unit(i uint64) float64 { return float64(s.at(i)>>11) / (1 << 53) }

// below returns a draw from 0 to n−1. The bias of the multiplication is below
// n/2⁶⁴.
func (s stream) below(i uint64, n uint32) uint32 {
	hi, _ := bits.Mul64(s.at(i), uint64(n))
	return uint32(hi)
}

func mix64(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// split decides which arm, or protocol, a position goes to: a seeded hash of the
// position against the cumulated shares.
type split struct {
	draw stream
	upTo []float64 // cumulated shares; the last one is 1
}

func newSplit(draw stream, shares []float64) (split, error) {
	s := split{draw: draw}
	sum := 0.0
	for i, share := range shares {
		if !(share >= 0 && share <= 1) {
			return s, fmt.Errorf("number %d has a share of %v; allowed is 0 to 1", i+1, share)
		}
		sum += share
		s.upTo = append(s.upTo, sum)
	}
	if math.Abs(sum-1) > 1e-9 {
		return s, fmt.Errorf("the shares add up to %v, not to 1", sum)
	}
	// The last one that gets anything takes what rounding left over.
	for i := len(shares) - 1; i >= 0; i-- {
		s.upTo[i] = 1
		if shares[i] > 0 {
			break
		}
	}
	return s, nil
}

func (s split) at(i uint64) int {
	if len(s.upTo) == 1 {
		return 0
	}
	u := s.draw.unit(i)
	for part, upTo := range s.upTo {
		if u < upTo {
			return part
		}
	}
	return len(s.upTo) - 1
}

// mix is the source of generated load: reads of keys drawn from a
// distribution, and writes mixed in.
type mix struct {
	keys, hot, writes stream
	draw              func(i uint64) uint32 // the rank of position i's key, from 0
	count             uint32
	readPath          [2]string // before and after the key; the second is unset where there is none
	write             scenario.Writes
	writePath         [2]string
	readKeyed         bool
	writeKeyed        bool
	also              populations
}

// maxKeys bounds the tables that a key distribution needs.
const maxKeys = 1 << 27

const keyMark = "{key}"

func newMix(l scenario.Load, seed uint64) (*mix, error) {
	m := &mix{
		keys:   newStream(seed, keyStream),
		hot:    newStream(seed, hotStream),
		writes: newStream(seed, writeStream),
		write:  l.Writes,
	}
	var faults []error
	if err := checkPath(l.Path); err != nil {
		faults = append(faults, fmt.Errorf("path: %w", err))
	}
	before, after, keyed := strings.Cut(l.Path, keyMark)
	m.readPath, m.readKeyed = [2]string{before, after}, keyed
	if w := l.Writes; !(w.Share >= 0 && w.Share <= 1) {
		faults = append(faults, fmt.Errorf("writes: a share of %v; allowed is 0 to 1", w.Share))
	} else if w.Share > 0 {
		if err := checkPath(w.Path); err != nil {
			faults = append(faults, fmt.Errorf("writes: path: %w", err))
		}
		if !isToken(w.Method) || w.Method == "CONNECT" || (request{method: w.Method}).cacheable() {
			faults = append(faults, fmt.Errorf("writes: method %q; allowed is one that writes, such as POST", w.Method))
		}
		before, after, keyed := strings.Cut(w.Path, keyMark)
		m.writePath, m.writeKeyed = [2]string{before, after}, keyed
	}
	if err := m.also.prepare(l, seed); err != nil {
		faults = append(faults, fmt.Errorf("also: %w", err))
	}
	if l.Keys.Count < 1 || l.Keys.Count > maxKeys {
		faults = append(faults, fmt.Errorf("keys: a count of %d; allowed is 1 to %d", l.Keys.Count, maxKeys))
		return nil, errors.Join(faults...)
	}
	m.count = uint32(l.Keys.Count)
	m.also.from = m.count + 1
	if m.writeKeyed {
		m.also.from = 2 * m.count
	}
	if rest := 1 - m.also.share(); rest > 0 {
		m.write.Share /= rest // of what is of no population
	}
	if err := m.distribute(l.Keys); err != nil {
		faults = append(faults, fmt.Errorf("keys: %w", err))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *mix) distribute(k scenario.Keys) error {
	switch k.Distribution {
	case scenario.Uniform:
		m.draw = func(i uint64) uint32 { return m.keys.below(i, m.count) }
	case scenario.Zipf:
		if !(k.Exponent >= 0) || math.IsInf(k.Exponent, 0) {
			return fmt.Errorf("an exponent of %v; allowed is 0 or more", k.Exponent)
		}
		upTo := zipfTable(k.Count, k.Exponent)
		m.draw = func(i uint64) uint32 {
			u := m.keys.unit(i)
			return uint32(sort.Search(len(upTo)-1, func(k int) bool { return u < upTo[k] }))
		}
	case scenario.HotSet:
		if !(k.HotKeys > 0 && k.HotKeys <= 1) || !(k.HotTraffic >= 0 && k.HotTraffic <= 1) {
			return fmt.Errorf("%v of the keys get %v of the requests; allowed are shares from 0 to 1, and some keys must be hot", k.HotKeys, k.HotTraffic)
		}
		hot := uint32(min(max(1, math.Round(k.HotKeys*float64(k.Count))), float64(k.Count)))
		m.draw = func(i uint64) uint32 {
			if hot == m.count || m.hot.unit(i) < k.HotTraffic {
				return m.keys.below(i, hot)
			}
			return hot + m.keys.below(i, m.count-hot)
		}
	default:
		return fmt.Errorf("distribution %q; allowed are zipf, uniform and hot", k.Distribution)
	}
	return nil
}

// zipfTable returns the cumulated probabilities of the ranks 1 to count, where
// P(rank k) ∝ k^−s: the exact inverse of the distribution by binary search,
// for any exponent (math/rand's Zipf needs more than 1). Summed from the small
// end, so that the many rare keys aren't lost in rounding.
func zipfTable(count int, s float64) []float64 {
	table := make([]float64, count)
	sum := 0.0
	for k := count; k >= 1; k-- {
		table[k-1] = sum // of the ranks beyond k
		sum += math.Pow(float64(k), -s)
	}
	for i := range table {
		table[i] = 1 - table[i]/sum
	}
	return table
}

func (m *mix) at(i uint64) request {
	if r, ok := m.also.at(i); ok {
		return r
	}
	if m.write.Share > 0 && m.writes.unit(i) < m.write.Share {
		r := request{method: m.write.Method, target: m.count}
		if m.writeKeyed {
			r.target += m.draw(i)
		}
		return r
	}
	r := request{method: "GET"}
	if m.readKeyed {
		r.target = m.draw(i)
	}
	return r
}

// appendTarget names a key after its rank: "k1" is the most popular one, in
// every run and for every seed.
func (m *mix) appendTarget(dst []byte, target uint32) []byte {
	if target >= m.also.from {
		return m.also.appendTarget(dst, target-m.also.from)
	}
	path, keyed := &m.readPath, m.readKeyed
	if target >= m.count {
		path, keyed, target = &m.writePath, m.writeKeyed, target-m.count
	}
	dst = append(dst, path[0]...)
	if !keyed {
		return dst
	}
	dst = append(dst, 'k')
	dst = strconv.AppendUint(dst, uint64(target)+1, 10)
	return append(dst, path[1]...)
}

func (m *mix) targets() int {
	return int(m.also.from) + m.also.targets
}

func (m *mix) popular(n int) []request {
	most := int(m.count)
	if !m.readKeyed {
		most = 1
	}
	top := make([]request, 0, max(0, min(n, most)))
	for k := range cap(top) {
		top = append(top, request{method: "GET", target: uint32(k)})
	}
	return slices.Clip(top)
}

// checkPath reports what keeps path from being sent as a request target.
func checkPath(path string) error {
	if !strings.HasPrefix(path, "/") {
		return fmt.Errorf("%q doesn't begin with /", path)
	}
	for i := range len(path) {
		if c := path[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return fmt.Errorf("%q holds %q, which a request target can't", path, string(path[i]))
		}
	}
	return nil
}

// isToken reports whether s is a token (RFC 9110, section 5.6.2) of sensible
// length, as methods are.
func isToken(s string) bool {
	if s == "" || len(s) > 32 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return true
}
