package http2

import (
	"encoding/binary"
	"strconv"

	"golang.org/x/net/http2"
)

const (
	frameHeader   = 9
	maxFrame      = 16 << 10  // bytes of a frame's payload, ours and theirs: what every peer takes (RFC 9113 §4.2)
	initialWindow = 1<<16 - 1 // bytes, of a stream and of a connection (§6.9.2)
)

// appendFrame begins a frame whose payload is what follows.
func appendFrame(out []byte, length int, kind http2.FrameType, flags http2.Flags, stream uint32) []byte {
	out = append(out, byte(length>>16), byte(length>>8), byte(length), byte(kind), byte(flags))
	return binary.BigEndian.AppendUint32(out, stream)
}

func appendSettings(out []byte, settings ...http2.Setting) []byte {
	out = appendFrame(out, 6*len(settings), http2.FrameSettings, 0, 0)
	for _, s := range settings {
		out = binary.BigEndian.AppendUint16(out, uint16(s.ID))
		out = binary.BigEndian.AppendUint32(out, s.Val)
	}
	return out
}

func appendReset(out []byte, stream uint32, code http2.ErrCode) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(out, 4, http2.FrameRSTStream, 0, stream), uint32(code))
}

func appendWindowUpdate(out []byte, stream, more uint32) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(out, 4, http2.FrameWindowUpdate, 0, stream), more)
}

func appendGoAway(out []byte, last uint32, code http2.ErrCode, why string) []byte {
	out = appendFrame(out, 8+len(why), http2.FrameGoAway, 0, 0)
	out = binary.BigEndian.AppendUint32(out, last)
	return append(binary.BigEndian.AppendUint32(out, uint32(code)), why...)
}

// AppendData appends a frame with a part of a body, of at most MaxData bytes; end says
// that it is the last one.
func AppendData(out []byte, stream uint32, part []byte, end bool) []byte {
	return append(appendFrame(out, len(part), http2.FrameData, flagIf(end, http2.FlagDataEndStream), stream), part...)
}

// MaxData is the longest part of a body that a frame takes, and the longest block of
// header fields that BeginHeaders and EndHeaders are for.
const MaxData = maxFrame

func flagIf(set bool, flag http2.Flags) http2.Flags {
	if set {
		return flag
	}
	return 0
}

// BeginHeaders appends the begin of a frame with a response's header: AppendStatus and
// AppendField follow, then EndHeaders with the length that out had before.
func (r *Request) BeginHeaders(out []byte) []byte {
	var begin [frameHeader + 1]byte
	if begin[frameHeader] = noTable; r.first {
		return append(out, begin[:]...)
	}
	return append(out, begin[:frameHeader]...)
}

// noTable begins a connection's first header block: it says that no dynamic table is
// used (RFC 7541 §6.3). A client that has made its own smaller waits for that.
const noTable = 0x20

// EndHeaders completes the frame that BeginHeaders began at this place; end says that
// nothing follows it.
func EndHeaders(out []byte, at int, stream uint32, end bool) []byte {
	flags := http2.FlagHeadersEndHeaders | flagIf(end, http2.FlagHeadersEndStream)
	appendFrame(out[:at], len(out)-at-frameHeader, http2.FrameHeaders, flags, stream)
	return out
}

// appendHeaders appends a header block of any length.
func appendHeaders(out []byte, stream uint32, block []byte, end bool) []byte {
	kind, flags := http2.FrameHeaders, flagIf(end, http2.FlagHeadersEndStream)
	for {
		part := block[:min(len(block), maxFrame)]
		if block = block[len(part):]; len(block) == 0 {
			flags |= http2.FlagHeadersEndHeaders
		}
		out = append(appendFrame(out, len(part), kind, flags, stream), part...)
		if len(block) == 0 {
			return out
		}
		kind, flags = http2.FrameContinuation, 0
	}
}

// AppendStatus appends the status to a header block, which begins with it. Blocks are in
// HPACK (RFC 7541) without use of its dynamic table: they depend on nothing that was sent
// before, may be made in any order, and are made straight from where the fields lie.
func AppendStatus(block []byte, status int) []byte {
	switch status {
	case 200, 204, 206, 304, 400, 404, 500:
		for i, known := range [...]int{200, 204, 206, 304, 400, 404, 500} {
			if known == status {
				return append(block, 0x80|byte(8+i))
			}
		}
	}
	var digits [20]byte
	return appendString(appendInteger(block, 0, 4, 8), strconv.AppendInt(digits[:0], int64(status), 10))
}

// AppendField appends a field to a header block. The name may be in any case.
func AppendField(block, name, value []byte) []byte {
	if index, ok := staticNames[string(name)]; ok {
		return appendString(appendInteger(block, 0, 4, index), value)
	}
	block = appendInteger(append(block, 0), 0, 7, len(name))
	for _, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		block = append(block, c)
	}
	return appendString(block, value)
}

func appendString(block, s []byte) []byte { return append(appendInteger(block, 0, 7, len(s)), s...) }

// appendInteger appends an integer with a prefix of so many bits, below the bits in
// first (RFC 7541 §5.1).
func appendInteger(block []byte, first byte, bits, n int) []byte {
	most := 1<<bits - 1
	if n < most {
		return append(block, first|byte(n))
	}
	block = append(block, first|byte(most))
	for n -= most; n >= 128; n >>= 7 {
		block = append(block, byte(n)|0x80)
	}
	return append(block, byte(n))
}

// staticNames are the names of fields of responses in HPACK's static table (RFC 7541
// appendix A), as the optimizer writes them.
var staticNames = map[string]int{
	"Accept-Ranges": 18, "Access-Control-Allow-Origin": 20, "Age": 21, "Allow": 22, "Cache-Control": 24, "Content-Disposition": 25,
	"Content-Encoding": 26, "Content-Language": 27, "Content-Length": 28, "Content-Location": 29, "Content-Range": 30, "Content-Type": 31,
	"Date": 33, "Etag": 34, "Expires": 36, "Last-Modified": 44, "Link": 45, "Location": 46, "Proxy-Authenticate": 48, "Refresh": 52,
	"Retry-After": 53, "Server": 54, "Set-Cookie": 55, "Strict-Transport-Security": 56, "Vary": 59, "Via": 60, "Www-Authenticate": 61,
}

// Preface is what a client begins with (RFC 9113 §3.4).
const Preface = http2.ClientPreface
