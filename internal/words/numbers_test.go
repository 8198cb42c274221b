package words

import "testing"

func TestNumbers(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{Grouped(1421250.4, 0), "1\u202f421\u202f250"},
		{Grouped(999, 0), "999"},
		{Grouped(-1234.5, 1), "−1\u202f234.5"},
		{Ratio(0.0123), "0.012"},
		{Ratio(1), "1"},
		{Ratio(9.94), "9.9"},
		{Ratio(9.96), "10"},
		{Ratio(12345), "12\u202f345"},
		{Percentile(0.4), "<1"},
		{Percentile(99.2), ">99"},
		{Percentile(49.6), "50"},
		{Bound(0.004), "less than 0.01"},
		{Bound(3.2e7), "more than 1\u202f000"},
		{Bound(142), "142"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}
