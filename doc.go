// Package neuroscreen holds the words of the product: what a scan, its
// metadata, its states, its result and its errors are. It imports nothing of
// ours; every other package may import it.
package neuroscreen
