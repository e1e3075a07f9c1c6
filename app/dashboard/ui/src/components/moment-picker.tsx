import "@mantine/dates/styles.css";

import { DateTimePicker, type DateTimePickerProps } from "@mantine/dates";
import { useTranslation } from "react-i18next";

/** A moment, to the second; what it says is local: `YYYY-MM-DD HH:mm:ss`. */
export function MomentPicker(props: DateTimePickerProps) {
  const { t } = useTranslation();
  return <DateTimePicker withSeconds valueFormat="YYYY-MM-DD HH:mm:ss" submitButtonProps={{ "aria-label": t("common.apply") }} {...props} />;
}
