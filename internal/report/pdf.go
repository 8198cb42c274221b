package report

import "io"

func PDF(w io.Writer, p Page) error { return nil }
