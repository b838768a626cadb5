package result

import (
	"fmt"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// EncodeHistogram returns h in the form of [System.Histogram]: HdrHistogram V2
// compressed encoding, base64. Its values are microseconds. A nil or empty
// histogram gives "", which stands for "no sample".
func EncodeHistogram(h *hdrhistogram.Histogram) (string, error) {
	if h == nil || h.TotalCount() == 0 {
		return "", nil
	}
	data, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return "", fmt.Errorf("encode histogram of %d values: %w", h.TotalCount(), err)
	}
	return string(data), nil
}

// DecodeHistogram is the reverse of [EncodeHistogram]; it returns nil for ""
// and for a histogram that holds no value.
func DecodeHistogram(encoded string) (*hdrhistogram.Histogram, error) {
	if encoded == "" {
		return nil, nil
	}
	h, err := hdrhistogram.Decode([]byte(encoded))
	if err != nil {
		return nil, fmt.Errorf("decode histogram: %w", err)
	}
	if h.TotalCount() == 0 {
		return nil, nil
	}
	return h, nil
}
