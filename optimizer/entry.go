package optimizer

import (
	"encoding/binary"
	"math/bits"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"unsafe"

	"phasegate/optimizer/arena"
	"phasegate/optimizer/httpcache"
)

// kind tells the three things apart that stand under a cache key.
type kind uint8

const (
	stored  kind = iota // a complete response
	varying             // under a primary key: the responses stand under variant keys
	passing             // under a primary key: the last response couldn't be shared, so don't wait for the next
)

// entryHead begins the memory of an entry. It has no pointers. Apart from its atomic
// fields it never changes once it is published, so readers share it without a lock; an
// update stores a new entry.
type entryHead struct {
	fresh     httpcache.Freshness
	asked     int64        // Unix nanoseconds at which the request for it was sent; passing: until when
	refreshAt atomic.Int64 // Unix nanoseconds from which a hit may start a background revalidation
	id        uint64       // varying: part of the variant keys, so that those of a dropped entry can't be found again
	fields    uint32       // bytes of the head, which follows this
	status    uint16
	kind      kind
	credit    int8        // lifetimes for which it is renewed although nobody asks for it
	hot       atomic.Bool // used at least once
	aged      bool        // the upstream sent Age, so it wasn't the origin's own answer
}

const entryHeadSize = int(unsafe.Sizeof(entryHead{}))

// object is a view of one entry, where that lies: valid while the entry is held, and
// held by whoever made it. A copy of it is another view of the same entry and has no
// hold of its own.
type object struct {
	*entryHead
	head  []byte // encoded fields
	body  []byte // varying: the selecting fields, each with a NUL after it
	entry arena.Entry
}

// viewOf is the view of an entry's memory.
func viewOf(value []byte) object {
	e := (*entryHead)(unsafe.Pointer(unsafe.SliceData(value)))
	rest := value[entryHeadSize:]
	return object{entryHead: e, head: rest[:e.fields:e.fields], body: rest[e.fields:]}
}

// view is the view of an entry that is held.
func view(e arena.Entry) object {
	o := viewOf(e.Value())
	o.entry = e
	return o
}

// newObject takes memory for a head and a body of so many bytes, to be filled, under a
// key of at most keyCap bytes. It is nil if there is none. The caller releases it.
func newObject(a *arena.Arena, keyCap, head, body int) *object {
	e, ok := a.Alloc(keyCap, entryHeadSize+head+body)
	if !ok {
		return nil
	}
	*(*entryHead)(unsafe.Pointer(unsafe.SliceData(e.Value()))) = entryHead{fields: uint32(head)}
	o := view(e)
	return &o
}

// hold is a view of the same entry with a hold of its own.
func (o *object) hold() *object {
	held := *o
	held.entry.Hold()
	return &held
}

// release ends the view. A nil one has nothing to end.
func (o *object) release() {
	if o != nil {
		o.entry.Release()
	}
}

// same reports whether both are views of one entry, or neither is there. Both are held,
// so no entry can have come to lie where the other was.
func (o *object) same(other *object) bool {
	if o == nil || other == nil {
		return o == other
	}
	return o.entry == other.entry
}

// selectingFields appends what a varying resource varies by. The strings are valid
// while the entry is held.
func (o *object) selectingFields(dst []string) []string {
	for rest := unsafe.String(unsafe.SliceData(o.body), len(o.body)); len(rest) > 0; {
		var name string
		name, rest, _ = strings.Cut(rest, "\x00")
		dst = append(dst, name)
	}
	return dst
}

// commonNames are the field names that an entry keeps as one byte: their place here,
// plus one. Of a response of 1 KiB the names alone were 4 % of what it took.
var commonNames = [...]string{
	"Date", "Cache-Control", "Content-Type", "Etag", "Last-Modified", "Expires", "Server", "Vary",
	"Content-Encoding", "Content-Language", "Content-Location", "Content-Disposition", "Set-Cookie", "Link", "Location", "Accept-Ranges",
	"Surrogate-Key", "Cache-Tag", "Content-Version", "Cdn-Cache-Control", "Surrogate-Control", "Pragma", "Via", "Retry-After",
	"Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Allow-Credentials",
	"Access-Control-Expose-Headers", "Access-Control-Max-Age", "Cross-Origin-Resource-Policy", "Timing-Allow-Origin",
	"Strict-Transport-Security", "Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options", "X-Xss-Protection",
	"Referrer-Policy", "Permissions-Policy", "X-Request-Id", "X-Powered-By", "Alt-Svc", "Server-Timing", "Cache-Status",
}

var commonCodes, commonBytes = func() (codes map[string]byte, names [len(commonNames)][]byte) {
	codes = make(map[string]byte, len(commonNames))
	for i, name := range commonNames {
		codes[name], names[i] = byte(i+1), []byte(name)
	}
	return codes, names
}()

// encoded is a header on its way into an entry.
type encoded struct {
	names []string
	size  int
}

// fieldsOf says which fields of the header an entry keeps, in their order: Date first,
// the others by name. Content-Length and Age are left out, because they are computed
// for each answer.
func fieldsOf(h http.Header) encoded {
	e := encoded{names: make([]string, 0, len(h))}
	for name, lines := range h {
		if name == "Content-Length" || name == "Age" {
			continue
		}
		e.names = append(e.names, name)
		own := 1
		if commonCodes[name] == 0 {
			own += lengthSize(len(name)) + len(name)
		}
		for _, line := range lines {
			e.size += own + lengthSize(len(line)) + len(line)
		}
	}
	slices.SortFunc(e.names, func(a, b string) int {
		switch {
		case a == "Date":
			return -1
		case b == "Date":
			return 1
		}
		return strings.Compare(a, b)
	})
	return e
}

// write writes the fields to block, which has just the size, in the form that an
// object keeps: for each field the byte of its name, or 0, the name's length and the
// name; then the value's length and the value. Lengths are varints.
func (e encoded) write(block []byte, h http.Header) {
	block = block[:0]
	for _, name := range e.names {
		code := commonCodes[name]
		for _, line := range h[name] {
			block = append(block, code)
			if code == 0 {
				block = append(binary.AppendUvarint(block, uint64(len(name))), name...)
			}
			block = append(binary.AppendUvarint(block, uint64(len(line))), line...)
		}
	}
}

// lengthSize is the size of a length, written.
func lengthSize(n int) int { return max(1, (bits.Len(uint(n))+6)/7) }

// next splits the first field off an encoded header. The name must not be written to.
func next(block []byte) (name, value, rest []byte) {
	if code, n := block[0], int(block[1]); code != 0 && n < 0x80 { // nearly all
		return commonBytes[code-1], block[2 : 2+n], block[2+n:]
	}
	return nextLong(block)
}

func nextLong(block []byte) (name, value, rest []byte) {
	if code := block[0]; code != 0 {
		name, rest = commonBytes[code-1], block[1:]
	} else {
		name, rest = cutLength(block[1:])
	}
	value, rest = cutLength(rest)
	return name, value, rest
}

// cutLength splits off what is preceded by its length.
func cutLength(block []byte) (piece, rest []byte) {
	n, size := binary.Uvarint(block)
	end := size + int(n)
	return block[size:end], block[end:]
}

// field returns the first line of the named field, or nil.
func (o *object) field(name string) []byte {
	for rest := o.head; len(rest) > 0; {
		var key, value []byte
		key, value, rest = next(rest)
		if string(key) == name {
			return value
		}
	}
	return nil
}

// header decodes the stored header, to the heap.
func (o *object) header() http.Header {
	h := http.Header{}
	for rest := o.head; len(rest) > 0; {
		var key, value []byte
		key, value, rest = next(rest)
		h[string(key)] = append(h[string(key)], string(value))
	}
	return h
}

// without is the object without the named fields, as another entry; nil if there is
// no room for one.
func (o *object) without(a *arena.Arena, keyCap int, names []string) *object {
	head := make([]byte, 0, len(o.head))
	for rest := o.head; len(rest) > 0; {
		name, _, after := next(rest)
		if !slices.Contains(names, string(name)) {
			head = append(head, rest[:len(rest)-len(after)]...)
		}
		rest = after
	}
	to := newObject(a, keyCap, len(head), len(o.body))
	if to != nil {
		copy(to.head, head)
		copy(to.body, o.body)
		to.fresh, to.status, to.asked, to.aged, to.credit = o.fresh, o.status, o.asked, o.aged, o.credit
		to.refreshAt.Store(o.refreshAt.Load())
	}
	return to
}
