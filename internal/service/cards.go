package service

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/httpapi"
	"neuroscreen/internal/model"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/segment"
)

// modelCards describes all that a result is made with: the network, the norms
// and the risk models.
func modelCards() ([]httpapi.ModelCard, error) {
	w, err := segment.DefaultWeights()
	if err != nil {
		return nil, err
	}
	norms := norm.Default()
	cards := []httpapi.ModelCard{
		{Name: "network", Sha256: w.SHA256(), Card: networkCard(w)},
		{Name: "norms", Sha256: norms.SHA256(), Card: norms.Card()},
	}
	for _, c := range model.Default().Cards() {
		cards = append(cards, httpapi.ModelCard{Name: c.Name, Sha256: c.SHA256, Card: c.Markdown()})
	}
	return cards, nil
}

func networkCard(w *segment.Weights) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# network

Weights: SHA-256 %s.

## Purpose

Labels and volumes of 31 structures and the intracranial volume of adults' T1-weighted scans without contrast agent, voxels up to 3 mm, whole or skull-stripped.

## Trained on

No scan: heads drawn from anatomical label maps of 20 people, bent, scaled and turned, with varied intensities, bias fields, noise and resolutions. By network:

`, w.SHA256())
	for _, n := range []struct {
		name string
		m    *segment.Model
	}{{"place of the head", w.Locate}, {"whole head", w.Whole}, {"half of the brain", w.Half}, {"inner structures of either side", w.Inner}} {
		if n.m != nil {
			p, a := n.m.Provenance, n.m.Architecture
			fmt.Fprintf(&b, "- %s: %g mm, %d x %d x %d voxels, %d channels", n.name, a.VoxelMM, a.Shape[0], a.Shape[1], a.Shape[2], a.Base)
			for l := range a.Depth {
				fmt.Fprintf(&b, ", %d", a.Channels(l+1))
			}
			fmt.Fprintf(&b, " by level, %d steps", p.Steps)
			for s := p.Start; s != nil; s = s.Before {
				fmt.Fprintf(&b, " after %d with %d at the first", s.Steps, s.Base)
			}
			for i, m := range p.MeanOf {
				fmt.Fprintf(&b, "%s %d", []string{", the mean of the weights after", " and"}[min(i, 1)], m.Steps)
			}
			if m := n.m.Borders; m != nil {
				fmt.Fprintf(&b, "; voxels in doubt read again, from %d features by way of %d, learnt from %d heads", a.Features(), m.Hidden, m.Provenance.Steps)
			}
			fmt.Fprintf(&b, ", maps %s; held out %s.\n", strings.Join(p.Maps, " "), strings.Join(p.HeldOut, " "))
		}
	}
	b.WriteString("\n## Performance\n\nOn heads drawn from the held-out maps.\n\n")
	for _, k := range slices.Sorted(maps.Keys(w.Evaluation)) {
		fmt.Fprintf(&b, "- %s: %.4g\n", strings.ReplaceAll(k, "_", " "), w.Evaluation[k])
	}
	b.WriteString("\nError of the volume: RMS on ordinary heads; bias that all heads share; correlation of what is left between both sides of a head (0 where it was not measured).\n\n")
	for _, s := range anatomy.Structures[1:] {
		fmt.Fprintf(&b, "- %s: %.1f %%, %+.1f %%, %.2f\n", s.Name, 100*w.RelativeError[s.Name], 100*w.Errors[s.Name].Bias, w.Errors[s.Name].Pair)
	}
	b.WriteString(`
## Limits

- The loss of one structure alone may come out too small or too large, by about a tenth of it: it is drawn towards what is usual for its surroundings.
- Thin and small structures carry the largest errors, and say so.
- It follows FreeSurfer's labels; volumes of other tools must not be compared with its own.
- Tumours, strokes, haemorrhage, malformations, shunts and the traces of surgery were never seen and are not recognised.

## Must not be used for

- anyone under 18
- scans with contrast agent, or not T1-weighted
- deciding whether a person has a disease, or ruling it out
`)
	return b.String()
}
