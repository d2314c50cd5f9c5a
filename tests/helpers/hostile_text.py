"""Text that would break out of its place in a page that does not escape it."""

MARKUP = (
    "</script><script>window.hacked = 1</script> <img src=x onerror='window.hacked = 1'> "
    '& "quoted" \U0001f600 cat'
)
