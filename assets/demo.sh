#!/usr/bin/env bash
# Makes assets/demo.mp4, the sample that `weir demo` carries: 24 s of H.264 and AAC with burnt-in drop-frame timecode
# and a tmcd track that says the same. Needs ffmpeg with libx264, and fonts-dejavu-core.
set -euo pipefail

out=${1:-$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/demo.mp4}
mono=/usr/share/fonts/truetype/dejavu/DejaVuSansMono-Bold.ttf
sans=/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf
rate=30000/1001
start='01\:00\:00\;00'

# A dark field with a faint grid; a level line; a disc that crosses the picture on a wave, once in eight seconds.
field="color=c=0x14202b:s=640x360:r=$rate,drawgrid=w=40:h=40:t=1:c=0x223444"
water="drawbox=x=0:y=262:w=640:h=3:c=0x4fb3bf:t=fill,drawbox=x=0:y=265:w=640:h=95:c=0x1b3a4b:t=fill"
disc="color=c=0xffb703:s=48x48:r=$rate,format=yuva420p,geq=lum='lum(X,Y)':cb='cb(X,Y)':cr='cr(X,Y)':a='255*lte(hypot(X-24,Y-24),22)'"
title="drawtext=fontfile=$sans:text='weir':x=24:y=20:fontsize=30:fontcolor=0xdfe7ec"
count="drawtext=fontfile=$sans:text='frame %{n}':x=w-tw-24:y=24:fontsize=22:fontcolor=0x9fb4c0"
code="drawtext=fontfile=$mono:timecode='$start':rate=$rate:x=(w-tw)/2:y=286:fontsize=52:fontcolor=white"

ffmpeg -nostdin -hide_banner -loglevel error -y -threads 1 -filter_threads 1 -filter_complex_threads 1 \
    -f lavfi -i "$field" -f lavfi -i "$disc" \
    -f lavfi -i "aevalsrc='0.06*sin(2*PI*220*t)*(0.6+0.4*cos(PI*t))|0.06*sin(2*PI*277.18*t)*(0.6+0.4*sin(PI*t))':s=48000" \
    -filter_complex "[0:v]${water}[f];[f][1:v]overlay=x='-48+mod(t,8)/8*688':y='150+60*sin(t*PI/1.5)':shortest=0,
        ${title},${count},${code},format=yuv420p[v]" \
    -map '[v]' -map 2:a -t 24 \
    -c:v libx264 -preset slow -crf 24 -threads 1 -g 45 -keyint_min 45 -sc_threshold 0 -bf 2 -profile:v high \
    -color_primaries bt709 -color_trc bt709 -colorspace bt709 \
    -c:a aac -b:a 64k -ac 2 -timecode '01:00:00;00' -movflags +faststart \
    -fflags +bitexact -flags:v +bitexact -flags:a +bitexact "$out"
