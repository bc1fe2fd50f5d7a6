//go:build linux

package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// The picture's sizes, in pixels.
const (
	width, height = 800, 440
	left, right   = 60, 610 // of the plot; labels stand to its right
	top, bottom   = 56, 390
)

// A curve is one contender's ratios to the floor.
type curve struct {
	name   string
	colour string // of the palette in the style, readable on light and on dark
	ratios []float64
}

// picture is an SVG: how many times as long as the floor each contender takes,
// for each number of secrets, both scales logarithmic.
func (r results) picture() string {
	var curves []curve
	for _, c := range []struct{ name, colour, floor string }{
		{bashOpenSSL, "c1", floor}, {bashAge, "c2", floor}, {sopsExec, "c3", floor},
		{hybrid, "c4", floor}, {separate, "c5", floor}, {bundle, "c6", floorBundle},
	} {
		if !slices.Contains(r.samples[0].names, c.name) {
			continue
		}
		k := curve{name: c.name, colour: c.colour}
		for _, s := range r.samples {
			k.ratios = append(k.ratios, s.ratio(c.name, c.floor))
		}
		curves = append(curves, k)
	}
	highest := 10.0
	for _, c := range curves {
		highest = max(highest, slices.Max(c.ratios))
	}
	decades := math.Ceil(math.Log10(highest))
	x := func(n int) float64 {
		first, last := math.Log(float64(r.samples[0].n)), math.Log(float64(r.samples[len(r.samples)-1].n))
		return left + (right-left)*(math.Log(float64(n))-first)/(last-first)
	}
	y := func(ratio float64) float64 { return bottom - (bottom-top)*math.Log10(max(ratio, 1))/decades }

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-labelledby="title">
<title id="title">How many times as long as the floor each way of giving a job its secrets takes</title>
<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.head { font-weight: 600; font-size: 15px }
.quiet { fill: #656d76 }
.grid { stroke: #d0d7de }
.curve { fill: none; stroke-width: 2.5 }
.c1 { stroke: #cf222e } .c2 { stroke: #bc4c00 } .c3 { stroke: #8250df } .c4 { stroke: #0969da } .c5 { stroke: #1a7f37 } .c6 { stroke: #4d8f00 }
@media (prefers-color-scheme: dark) {
	text { fill: #e6edf3 } .quiet { fill: #9198a1 } .grid { stroke: #3d444d }
	.c1 { stroke: #ff7b72 } .c2 { stroke: #ffa657 } .c3 { stroke: #d2a8ff } .c4 { stroke: #79c0ff } .c5 { stroke: #56d364 } .c6 { stroke: #b5e853 }
}
</style>
<text class="head" x="%d" y="22">Times as long as the floor (logarithmic; lower is better)</text>
<text class="quiet" x="%d" y="41">The floor has the values in hand and only masks and sets them.</text>
`, width, height, width, height, left, left)
	for d := range int(decades) + 1 {
		at := y(math.Pow(10, float64(d)))
		fmt.Fprintf(&b, `<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/><text class="quiet" x="%d" y="%.1f" text-anchor="end">%.0f</text>`+"\n",
			left, at, right, at, left-8, at+4, math.Pow(10, float64(d)))
	}
	for _, s := range r.samples {
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/><text class="quiet" x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n",
			x(s.n), top, x(s.n), bottom, x(s.n), bottom+20, s.n)
	}
	fmt.Fprintf(&b, `<text class="quiet" x="%d" y="%d" text-anchor="middle">secrets in one job</text>`+"\n", (left+right)/2, bottom+40)

	// Labels from the top down, none over another.
	slices.SortFunc(curves, func(a, b curve) int {
		return cmp.Compare(b.ratios[len(b.ratios)-1], a.ratios[len(a.ratios)-1])
	})
	free := 0.0
	for i, c := range curves {
		points := make([]string, len(c.ratios))
		for j, ratio := range c.ratios {
			points[j] = fmt.Sprintf("%.1f,%.1f", x(r.samples[j].n), y(ratio))
		}
		last := c.ratios[len(c.ratios)-1]
		// As high as its curve's end, but with room for the labels below it.
		at := max(min(y(last)+4, bottom+4-16*float64(len(curves)-1-i)), free)
		free = at + 16
		fmt.Fprintf(&b, `<polyline class="curve %s" points="%s"/>`+"\n", c.colour, strings.Join(points, " "))
		fmt.Fprintf(&b, `<line class="curve %s" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/><text x="%d" y="%.1f">%s: %.*f</text>`+"\n",
			c.colour, right+4, y(last), right+14, at-4, right+18, at, c.name, digits(last), last)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
